"""How dense weights lie in memory on a CPU, chosen by what is quick on this machine."""

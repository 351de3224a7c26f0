"""The layout of dense weights in memory on a CPU, chosen by what is quick on this machine."""

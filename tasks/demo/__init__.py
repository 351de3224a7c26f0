"""The demo: a private server, the bundled model and a worker on this machine, all gone when it ends."""

"""The running batch: its rows, their caches, and the way they are stepped."""

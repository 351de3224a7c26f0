"""The queues and lanes that a worker takes requests from: its room, and the threads that look at waiting requests."""

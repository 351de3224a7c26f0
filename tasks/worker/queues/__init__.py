"""From which queues and lanes a worker takes requests: its room, and the threads that look at what waits."""

"""Messages in queues: the transport, the result store, and what is noted of every message."""

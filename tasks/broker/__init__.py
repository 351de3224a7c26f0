"""Messages in queues: the transport, the result store, and the ledger of every message."""

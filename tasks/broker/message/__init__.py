"""One message, without Redis: its text and its shape within bounds, and the digests of its request."""

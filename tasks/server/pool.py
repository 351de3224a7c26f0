"""A pool of connections to Redis of which none outlives a silence."""

from __future__ import annotations

from typing import Any

from redis import ConnectionPool

#: No bound: all threads of a process share a pool, and each has one of its connections at most.
MOST_CONNECTIONS = 2**31


class Pool(ConnectionPool):
    """As many connections as threads need at once. kombu's and Celery's own bounds are for pools that fewer share.

    Once a connection was lost, or had to be given up without a reply, all idle ones are closed.

    They were silent for longer. Behind a router that forgot them each would cost one more time-out, one call after the other.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{**options, "max_connections": MOST_CONNECTIONS})

    def release(self, connection: Any) -> None:
        """Take a connection back."""
        was_lost = not connection.is_connected
        super().release(connection)
        if was_lost:
            self.disconnect(inuse_connections=False)

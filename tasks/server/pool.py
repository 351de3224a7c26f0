"""A pool of connections to Redis of which none outlives a silence."""

from __future__ import annotations

from typing import Any

from redis import ConnectionPool


class Pool(ConnectionPool):
    """Once a connection was lost, or had to be given up without a reply, all idle ones are closed.

    They were silent for longer. Behind a router that forgot them each would cost one more time-out, one call after the other.
    """

    def release(self, connection: Any) -> None:
        """Take a connection back."""
        was_lost = not connection.is_connected
        super().release(connection)
        if was_lost:
            self.disconnect(inuse_connections=False)

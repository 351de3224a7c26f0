"""The one Redis connection that stands for a worker's life: the sweep takes its absence for the worker's death."""

from __future__ import annotations

import select
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import redis
from redis.backoff import NoBackoff
from redis.connection import ConnectionPool
from redis.maint_notifications import MaintNotificationsConfig
from redis.retry import Retry

from tasks.server import keys
from tasks.server.connection import translated

if TYPE_CHECKING:
    from redis.connection import AbstractConnection

# redis-py's own bookkeeping in a pool's settings, which belongs to that pool.
NOT_COPIED = ("maint_", "orig_", "himport", "event_")
#: The longest wait for a connection or a reply.
TIMEOUT_S = 3.0
#: A server that closes this connection so often within so many seconds closes connections for their silence.
CLOSINGS, CLOSINGS_S = 3, 60.0


class Lifeline:
    """A named connection of its own, with the server's number for it. For one thread at a time.

    It never reconnects behind its owner's back: an error closes it, and the next :meth:`connect` gives it its name, and
    a new number, again. A pooled client would lose both (measured).

    Args:
        client: says where Redis is; nothing else of it is used.
        identity: the worker's ``node#boot``.
    """

    def __init__(self, client: redis.Redis, identity: str) -> None:
        pool = client.connection_pool
        settings = {name: value for name, value in pool.connection_kwargs.items() if not name.startswith(NOT_COPIED)}
        settings |= {
            "client_name": keys.connection(identity),
            "decode_responses": False,
            "protocol": 2,
            "retry": Retry(NoBackoff(), 0),
            "socket_timeout": TIMEOUT_S,
            "socket_connect_timeout": TIMEOUT_S,
            "socket_keepalive": True,
            "maint_notifications_config": MaintNotificationsConfig(enabled=False),
        }
        self._pool = ConnectionPool(connection_class=pool.connection_class, **settings)
        self._client: redis.Redis | None = None
        self._connection: AbstractConnection | None = None
        self._client_id = ""
        self._closed_at: deque[float] = deque(maxlen=CLOSINGS)

    @property
    def closed_for_silence(self) -> bool:
        """Whether the server closes this connection because nothing is sent on it for a while, by its setting ``timeout``."""
        times = self._closed_at
        return len(times) == CLOSINGS and time.monotonic() - times[0] < CLOSINGS_S

    @property
    def client_id(self) -> str:
        """The server's number of this connection; empty while there is none, or none whose absence says anything."""
        return "" if self.closed_for_silence else self._client_id

    def connect(self) -> redis.Redis:
        """The client that uses this connection alone, which is made, named and numbered first where it is closed.

        Raises:
            BrokerUnavailable: Redis cannot be reached.
        """
        if self._client is not None and not self._is_closed_there():
            return self._client
        self.close()
        with translated("connecting to the registry"):
            try:
                client = redis.Redis(connection_pool=self._pool, single_connection_client=True)
                self._client_id = str(client.client_id())
            except BaseException:
                self.close()
                raise
        self._client, self._connection = client, client.connection
        return client

    def _is_closed_there(self) -> bool:
        """Whether the server has closed it: nothing else is there to be read between commands."""
        number = self.fileno()
        if number is None:
            return False
        poller = select.poll()
        poller.register(number, select.POLLIN)
        if not poller.poll(0):
            return False
        self._closed_at.append(time.monotonic())
        return True

    def fileno(self) -> int | None:
        """The socket's descriptor, which becomes readable when the server closes it; ``None`` while there is none."""
        sock: Any = getattr(self._connection, "_sock", None)
        return None if sock is None else int(sock.fileno())

    def close(self) -> None:
        """Give the connection up. A second call does nothing."""
        self._client, self._connection, self._client_id = None, None, ""
        self._pool.disconnect()
        self._pool.reset()

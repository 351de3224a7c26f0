"""A connection of redis-py's whose replies go to hiredis directly (:mod:`tasks.server.resp`), with few calls of the system.

Python asks the system before each send and each read of a socket with a time-out (``poll``), and lets other threads run at both
calls. In a process with many threads these switches cost more than the calls, so the system bounds the waits instead.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import time
from typing import TYPE_CHECKING, Any

from redis import exceptions

from tasks.server.resp import Replies

if TYPE_CHECKING:
    from redis import Redis

READ_BYTES = 64 * 1024
#: No server closes connections that were silent for less.
SILENCE_S = 1.0


class Wire:
    """A connection on which redis-py connects, logs in and sends, and this class reads the replies. For one thread at a time.

    Every method raises :class:`redis.exceptions.ConnectionError`, or its ``TimeoutError``, where the connection is lost. It is
    closed then, and the next command opens another one.

    Args:
        client: says where the server is, and how long a reply is waited for.
    """

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._connection: Any = client.connection_pool.make_connection()
        self.socket: Any = None
        self._used_at = 0.0
        self._replies = self._parser()

    def connect(self) -> None:
        """Connect, unless that is done."""
        self._connection.connect()
        self._note_socket()

    def disconnect(self) -> None:
        """Close the connection."""
        self._connection.disconnect()

    def send(self, packed: bytes) -> None:
        """Send commands, packed."""
        self._connection.send_packed_command([packed], check_health=False)
        self._note_socket()

    def ask(self, packed: bytes, count: int) -> list[Any]:
        """Send so many commands, packed, and wait for their replies. A refusal of Redis is an exception among them."""
        self.send(packed)
        replies: list[Any] = []
        while len(replies) < count:
            replies += self._parsed(self._received())
        self._used_at = time.monotonic()
        return replies

    def heard(self) -> tuple[list[Any], bool]:
        """Return the replies that have come, without a wait, and whether there may be more that no look at the socket shows."""
        is_secure = isinstance(self.socket, ssl.SSLSocket)
        try:
            data = self._received_securely() if is_secure else self.socket.recv(READ_BYTES, socket.MSG_DONTWAIT)
        except (BlockingIOError, ssl.SSLWantReadError):
            return [], False
        except OSError as error:
            raise self._lost(error) from error
        has_more = len(data) == READ_BYTES or (is_secure and self.socket.pending() > 0)
        return self._parsed(data), has_more

    def drop_if_closed(self, silence_s: float = SILENCE_S) -> None:
        """Close a connection that the server has closed for its silence: nothing else is there to be read between commands."""
        if self._connection._sock is None or time.monotonic() - self._used_at < silence_s:
            return
        poller = select.poll()
        poller.register(self._connection._sock, select.POLLIN)
        if poller.poll(0):
            self.disconnect()

    def _note_socket(self) -> None:
        """Begin again where redis-py has opened another socket."""
        if self._connection._sock is not self.socket:
            self.socket = self._connection._sock
            self._replies = self._parser()
            bound_by_system(self.socket)

    def _parser(self) -> Replies:
        return Replies(self._connection._parser.parse_error)

    def _received(self) -> bytes:
        try:
            data: bytes = self.socket.recv(READ_BYTES)
        except OSError as error:
            raise self._lost(error) from error
        return data

    def _received_securely(self) -> bytes:
        timeout_s = self.socket.gettimeout()
        self.socket.settimeout(0)
        try:
            data: bytes = self.socket.recv(READ_BYTES)
        finally:
            self.socket.settimeout(timeout_s)
        return data

    def _parsed(self, data: bytes) -> list[Any]:
        if not data:
            raise self._lost(OSError("it was closed by the server"))
        replies = self._replies.feed(data)
        for reply in replies:
            # As that it reads its data just now, or that it has too many connections.
            if isinstance(reply, exceptions.ConnectionError):
                self.disconnect()
                raise reply
        return replies

    def _lost(self, error: OSError) -> exceptions.RedisError:
        self.disconnect()
        # Where a bound of the system's is over, it says "try again".
        is_late = isinstance(error, TimeoutError | BlockingIOError)
        kind = exceptions.TimeoutError if is_late else exceptions.ConnectionError
        return kind(f"reading from Redis: {error or type(error).__name__}")


def bound_by_system(link: socket.socket) -> None:
    """Have the system bound the waits of a connected socket by its time-out. With TLS Python goes on to do it."""
    timeout_s = link.gettimeout()
    if timeout_s and not isinstance(link, ssl.SSLSocket):
        bound = struct.pack("ll", int(timeout_s), int(timeout_s % 1 * 1e6))
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, bound)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, bound)
        link.settimeout(None)

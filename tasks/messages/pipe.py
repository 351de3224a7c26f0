"""The pipe between a worker and an engine: records in order; a sender never waits for a reader."""

from __future__ import annotations

import socket
import struct
import threading
from collections import deque
from multiprocessing.reduction import ForkingPickler
from typing import Any

READ_BYTES = 64 * 1024
# The framing of multiprocessing.connection: four bytes of length, or -1 and eight bytes.
_SHORT, _LONG = struct.Struct("!i"), struct.Struct("!iQ")
_MOST_SHORT = 0x7FFFFFFF


class _Socket(socket.socket):
    """A socket that is closed, without Python's warning, when nobody holds it any more."""

    def __del__(self) -> None:
        self.close()


class Pipe:
    """One end of a pipe. Any thread may send; one thread receives.

    A record is written by the thread that sends it, as far as the system takes it at once: a hand-over to another thread costs
    more than the write. What is left goes out on a thread of the pipe's own, and so does all that is sent meanwhile. It is closed
    when nobody holds it any more, because a thread may still be about to read from it.

    Args:
        link: a connected stream socket in blocking mode, which belongs to the pipe from now on.
        name: of the thread.
    """

    def __init__(self, link: socket.socket, name: str) -> None:
        self._link = _Socket(fileno=link.detach())
        self._buffer = bytearray()
        self._received: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._unsent: deque[memoryview] = deque()
        self._is_writing = False
        self._has_ended = False
        self._name = name

    def start(self) -> None:
        """Start the thread that writes the bytes that the system does not take at once."""
        threading.Thread(target=self._write, name=self._name, daemon=True).start()

    def send(self, record: Any) -> None:
        """Have a record written; returns at once. After the end of either side it is dropped.

        Raises:
            Exception: whatever pickling raises for a record that cannot be sent.
        """
        data = ForkingPickler.dumps(record)
        size = len(data)
        header = _SHORT.pack(size) if size <= _MOST_SHORT else _LONG.pack(-1, size)
        packet = memoryview(header + data)
        with self._changed:
            if not self._unsent and not self._is_writing:
                packet = packet[self._send_now(packet) :]
            if packet and not self._has_ended:
                self._unsent.append(packet)
                self._changed.notify_all()

    def flush(self, timeout_s: float) -> None:
        """Wait until all that was sent before is with the system."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_ended or not (self._unsent or self._is_writing), timeout_s)

    def end(self) -> None:
        """End the thread. Unwritten bytes are dropped."""
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def receive(self) -> Any:
        """Wait for the next record.

        Raises:
            EOFError: the other end was closed.
            OSError: the same.
        """
        while not self._received:
            self._fill()
        return ForkingPickler.loads(self._received.popleft())

    @property
    def has_more(self) -> bool:
        """Whether :meth:`receive` returns without waiting: a read brings several records where the reader lags behind."""
        return bool(self._received)

    def _send_now(self, packet: memoryview) -> int:
        """Write the bytes that the system takes without a wait, and return how many."""
        try:
            return self._link.send(packet, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except OSError:  # the receiving thread sees the same end, and reports it
            self._has_ended = True
            return 0

    def _write(self) -> None:
        while (packet := self._next()) is not None:
            try:
                self._link.sendall(packet)
            except OSError:
                self.end()

    def _next(self) -> memoryview | None:
        with self._changed:
            self._is_writing = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._has_ended or self._unsent)
            if self._has_ended:
                return None
            self._is_writing = True
            return self._unsent.popleft()

    def _fill(self) -> None:
        data = self._link.recv(READ_BYTES)
        if not data:
            raise EOFError
        self._buffer += data
        begin = 0
        while (bounds := self._record_at(begin)) is not None:
            self._received.append(bytes(self._buffer[bounds[0] : bounds[1]]))
            begin = bounds[1]
        del self._buffer[:begin]

    def _record_at(self, begin: int) -> tuple[int, int] | None:
        """Return where the record behind the header at this place begins and ends; ``None`` if it has not come whole."""
        have = len(self._buffer) - begin
        if have < _SHORT.size:
            return None
        (size,) = _SHORT.unpack_from(self._buffer, begin)
        first = begin + _SHORT.size
        if size == -1:
            if have < _LONG.size:
                return None
            _, size = _LONG.unpack_from(self._buffer, begin)
            first = begin + _LONG.size
        return (first, first + size) if first + size <= len(self._buffer) else None

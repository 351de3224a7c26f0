"""A wait that other threads can end, and that the server ends where it closes a connection."""

from __future__ import annotations

import os
import selectors
import threading
import time


class Waker:
    """Waits for a time, for :meth:`wake`, or for the server to close a connection, whichever comes first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._open = True

    def wake(self) -> None:
        """End the wait that is on, or the next one."""
        with self._lock:
            if self._open:
                try:
                    os.write(self._write, b"!")
                except BlockingIOError:
                    return  # full of wake-ups that nobody has seen yet

    def wait(self, until: float, connection: int | None) -> None:
        """Return at a monotonic time, when woken, or when this descriptor becomes readable."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._read, selectors.EVENT_READ)
            if connection is not None:
                selector.register(connection, selectors.EVENT_READ)
            ready = selector.select(max(0.0, until - time.monotonic()))
        if any(key.fd == self._read for key, _ in ready):
            os.read(self._read, 65536)

    def close(self) -> None:
        """Free the descriptors."""
        with self._lock:
            if self._open:
                self._open = False
                os.close(self._read)
                os.close(self._write)

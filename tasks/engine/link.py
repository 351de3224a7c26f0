"""The engine's end of the pipe to its worker: a thread that reads, and one that writes."""

from __future__ import annotations

import logging
import os
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING

from tasks.messages.embedding import Embed, Rerank
from tasks.messages.engine import Abort, Resize, Shutdown, Submit

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from tasks.messages.engine import FromEngine, Work

logger = logging.getLogger(__name__)


class Link:
    """Reads and writes on threads of its own, so that neither a slow pipe nor a long step holds up the other.

    The reading thread is the watchdog too. When the worker has gone, or asks for an end, it ends the process there and
    then: the stepping thread may be stuck in a kernel for good.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._outgoing: SimpleQueue[FromEngine | threading.Event] = SimpleQueue()

    def start(self, receive: Callable[[Work | Abort | Resize], None]) -> None:
        """Begin to hand what comes to ``receive``, which must not block."""
        threading.Thread(target=self._read, args=(receive,), name="link-reader", daemon=True).start()
        threading.Thread(target=self._write, name="link-writer", daemon=True).start()

    def send(self, message: FromEngine) -> None:
        """Queue a message; pickling and writing happen elsewhere, while the device works."""
        self._outgoing.put(message)

    def flush(self, timeout_s: float = 5.0) -> None:
        """Wait until all that was sent before is in the pipe."""
        written = threading.Event()
        self._outgoing.put(written)
        written.wait(timeout_s)

    def _read(self, receive: Callable[[Work | Abort | Resize], None]) -> None:
        try:
            while not isinstance(message := self._connection.recv(), Shutdown):
                if not isinstance(message, Submit | Embed | Rerank | Abort | Resize):
                    raise TypeError(f"{type(message).__name__} is no message to an engine")  # noqa: TRY301
                receive(message)
        except (EOFError, OSError):
            logger.debug("the worker has gone")
        except BaseException:
            logger.exception("a message from the worker could not be read")
            os._exit(1)
        os._exit(0)

    def _write(self) -> None:
        while True:
            message = self._outgoing.get()
            if isinstance(message, threading.Event):
                message.set()
                continue
            try:
                self._connection.send(message)
            except OSError:
                # The reader sees the same end, and may have more to say about it.
                logger.debug("the worker reads no more")
                return

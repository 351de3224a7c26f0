"""The engine's end of the pipe to its worker, and the thread that reads from it."""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING

from tasks.messages.embedding import Embed, Rerank
from tasks.messages.engine import Abort, Resize, Shutdown, Submit

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.messages.engine import FromEngine, Work
    from tasks.messages.pipe import Pipe

logger = logging.getLogger(__name__)


class Link:
    """Reads on a thread of its own, so that a long step holds up no message; nor does a worker that does not read hold up a step.

    The reading thread is the watchdog too. When the worker has gone, or asks for an end, it ends the process there and
    then: the stepping thread may be stuck in a kernel for good.
    """

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    def start(self, receive: Callable[[Work | Abort | Resize], None]) -> None:
        """Begin to hand what comes to ``receive``, which must not block."""
        self._pipe.start()
        threading.Thread(target=self._read, args=(receive,), name="link-reader", daemon=True).start()

    def send(self, message: FromEngine) -> None:
        """Send a message; never waits for the worker."""
        self._pipe.send(message)

    def flush(self, timeout_s: float = 5.0) -> None:
        """Wait until all that was sent before is in the pipe."""
        self._pipe.flush(timeout_s)

    def tell(self, message: FromEngine) -> None:
        """Send a message that has to be in the pipe before what follows it, which may end the process."""
        self.send(message)
        self.flush()

    def _read(self, receive: Callable[[Work | Abort | Resize], None]) -> None:
        try:
            while not isinstance(message := self._pipe.receive(), Shutdown):
                if not isinstance(message, Submit | Embed | Rerank | Abort | Resize):
                    raise TypeError(f"{type(message).__name__} is not a message to an engine")  # noqa: TRY301
                receive(message)
        except (EOFError, OSError):
            logger.debug("the worker has gone")
        except BaseException:
            logger.exception("a message from the worker could not be read")
            os._exit(1)
        os._exit(0)

"""The scheduler: the thread that queues messages when they are due (:mod:`tasks.broker.queues.schedule`)."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from tasks.errors import BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.broker.queues.schedule import Moved

logger = logging.getLogger(__name__)

#: The longest that a message may be late which another process has scheduled since the last look.
LOOK_S = 1.0


class Scheduler(threading.Thread):
    """Queues the messages that are due, for this worker or any other that serves the queue.

    Args:
        move: queues the messages that are due now.
        look_s: the longest time between two looks.
    """

    def __init__(self, move: Callable[[], Moved], look_s: float = LOOK_S) -> None:
        super().__init__(name="scheduler", daemon=True)
        self._move = move
        self._look_s = look_s
        self._ending = threading.Event()

    def run(self) -> None:
        """Look until :meth:`stop`."""
        wait_s = 0.0
        while not self._ending.wait(wait_s):
            wait_s = self._look()

    def stop(self) -> None:
        """End the thread."""
        self._ending.set()
        if self.is_alive():
            self.join()

    def _look(self) -> float:
        """Queue the messages that are due, and return the seconds until the next look."""
        try:
            moved = self._move()
        except BrokerUnavailable as error:
            logger.debug("the schedule could not be read: %s", error)
        except Exception:
            # Never let this thread die: without it no scheduled message is queued by this worker.
            logger.exception("a look at the schedule failed")
        else:
            if moved.count:
                return 0.0
            if moved.next_s is not None:
                return min(self._look_s, moved.next_s)
        return self._look_s

"""Starvation: requests wait in a queue that this worker has room for, and it receives none. Something in it is stuck."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from tasks.errors import BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

LOOKS = 10
LONGEST_LOOK_S = 3.0
#: A look that comes later than this says nothing of the time before it, on a machine that is busy too.
SHORTEST_GAP_S = 1.0


class Starvation(threading.Thread):
    """Looks at the queues, and has the worker end when nothing was received for too long.

    A fetch that is out gets a message at once where there is one, so a queue that is seen with messages again and again, and
    room for them, and nothing received all the while, is one that is not fetched from, whatever the reason.

    Args:
        after_s: for how long; 0 never ends the worker.
        waiting: how many messages wait in the queues that this worker has room for.
        received: how many messages were received so far.
        on_starved: called once, on this thread, with a message.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        after_s: float,
        waiting: Callable[[], int],
        received: Callable[[], int],
        on_starved: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name="starvation", daemon=True)
        self._after_s = after_s
        self._look_s = min(LONGEST_LOOK_S, after_s / LOOKS)
        self._waiting = waiting
        self._received = received
        self._on_starved = on_starved
        self._clock = clock
        self._ending = threading.Event()
        self._since: float | None = None
        self._looked_at = 0.0
        self._seen = -1

    def run(self) -> None:
        """Look until :meth:`stop`."""
        while self._after_s and not self._ending.wait(self._look_s):
            try:
                message = self.look()
            except Exception:
                # A thread that ends notices nothing any more.
                logger.exception("a look at the queues failed")
                continue
            if message:
                self._on_starved(message)
                return

    def stop(self) -> None:
        """End the thread; it may be this one that says so."""
        self._ending.set()
        if self.is_alive() and threading.current_thread() is not self:
            self.join()

    def look(self) -> str:
        """Look once; the message if the worker is starved."""
        try:
            waiting = self._waiting()
        except BrokerUnavailable as error:
            logger.debug("the queues could not be read: %s", error)
            waiting = 0
        now, received = self._clock(), self._received()
        # Nobody fetches while the worker is asleep, nor while Redis answers only now and then, behind somebody's slow commands.
        is_late = now - self._looked_at > max(2 * self._look_s, SHORTEST_GAP_S)
        if not waiting or received != self._seen or is_late:
            self._since = None
        self._seen, self._looked_at = received, now
        if not waiting:
            return ""
        self._since = now if self._since is None else self._since
        if now - self._since < self._after_s:
            return ""
        return (
            f"{waiting} requests wait and there is room for them, but none was received for {now - self._since:.0f} s: "
            "this worker ends, for its supervisor to start it again"
        )

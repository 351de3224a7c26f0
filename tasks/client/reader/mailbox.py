"""Calls from other threads to an event loop, many with one wake-up."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


class Mailbox:
    """Calls of one event loop's, in the order in which they were posted.

    ``call_soon_threadsafe`` writes to a socket each time: with a thousand readers that costs more than what is read.
    """

    def __init__(self) -> None:
        self._posted: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._is_woken = False

    def post(self, loop: asyncio.AbstractEventLoop, call: Callable[[Any], None], argument: Any) -> None:
        """Have the loop call it soon; from any thread.

        Raises:
            RuntimeError: the loop was closed.
        """
        self._posted.append((call, argument))
        if not self._is_woken:
            self._is_woken = True
            loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        # Before the first look: whatever is posted after the last one wakes the loop.
        self._is_woken = False
        for _ in range(len(self._posted)):
            call, argument = self._posted.popleft()
            try:
                call(argument)
            except Exception as error:  # the other readers have nothing to do with it  # noqa: BLE001
                about = {"message": "a reader's callback has failed", "exception": error}
                asyncio.get_running_loop().call_exception_handler(about)

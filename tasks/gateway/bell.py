"""What wakes the one task that gives an answer."""

from __future__ import annotations

import asyncio


class Bell:
    """An :class:`asyncio.Event` for one waiter: that one's queue alone takes 600 bytes, and its timeout two more objects."""

    __slots__ = ("_is_rung", "_waiter")

    def __init__(self) -> None:
        self._is_rung = False
        self._waiter: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """There is something to look at."""
        self._is_rung = True
        self._wake()

    def clear(self) -> None:
        """It was looked at."""
        self._is_rung = False

    async def wait(self, patience_s: float | None = None) -> bool:
        """Whether it was rung before the time was over; without one it waits as long as it takes."""
        if self._is_rung:
            return True
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = None if patience_s is None else loop.call_later(patience_s, self._wake)
        try:
            await self._waiter
        finally:
            self._waiter = None
            if timer is not None:
                timer.cancel()
        return self._is_rung

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

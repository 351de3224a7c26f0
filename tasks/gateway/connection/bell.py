"""Wakes the one task that gives an answer."""

from __future__ import annotations

import asyncio


class Bell:
    """An :class:`asyncio.Event` for one waiter: that one's queue alone takes 600 bytes, and its timeout two more objects.

    All waits share one timer, which is set again only when it has run out: a stream waits once for each token.
    """

    __slots__ = ("_is_rung", "_timer", "_until", "_waiter")

    def __init__(self) -> None:
        self._is_rung = False
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        #: When the wait that goes on ends by itself.
        self._until = 0.0

    def ring(self) -> None:
        """There is something to look at."""
        self._is_rung = True
        self._wake()

    def clear(self) -> None:
        """It was looked at."""
        self._is_rung = False

    def close(self) -> None:
        """Nobody waits any more."""
        if self._timer is not None:
            self._timer.cancel()

    async def wait(self, patience_s: float | None = None) -> bool:
        """Whether it was rung before the time was over; without one it waits as long as it takes."""
        if self._is_rung:
            return True
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        self._until = float("inf") if patience_s is None else loop.time() + patience_s
        if patience_s is not None and (self._timer is None or self._timer.when() > self._until):
            self._set_timer(loop)
        try:
            await self._waiter
        finally:
            self._waiter = None
        return self._is_rung

    def _set_timer(self, loop: asyncio.AbstractEventLoop) -> None:
        self.close()
        self._timer = loop.call_at(self._until, self._run_out, loop)

    def _run_out(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if self._waiter is None or self._until == float("inf"):
            return
        if loop.time() < self._until:
            self._set_timer(loop)
        else:
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

"""Answers that nobody waits for: their cost is counted all the same."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from tasks.errors import GenerationError
from tasks.gateway.connection.bell import Bell

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tasks.gateway.answers.desk import Desk, Ticket

logger = logging.getLogger(__name__)


class Background:
    """Follows answers to their ends. If the gateway ends first, the next reader of the answer has it counted.

    Args:
        desk: counts.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._tasks: set[asyncio.Task[None]] = set()

    def attend(self, ticket: Ticket) -> None:
        """Follow an answer."""
        self._begin(self._follow(ticket))

    def linger(self, ticket: Ticket, grace_s: float) -> None:
        """Follow an answer whose client has left; cancel it if nobody goes on with it within this time."""
        self._begin(self._follow(ticket, grace_s))

    def _begin(self, following: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(following)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self, ticket: Ticket, grace_s: float | None = None) -> None:
        stirred = Bell()
        self._desk.open[ticket] = lambda: self._begin(self._desk.cancel(ticket))
        with self._desk.follow(ticket, stirred) as following:
            try:
                async with asyncio.timeout(grace_s):
                    while not following.is_over:
                        await stirred.wait()
                        following.take()
            except TimeoutError:
                if await self._desk.is_read_elsewhere(ticket):  # its reader counts it
                    self._desk.open.pop(ticket, None)
                    return
                await self._desk.cancel(ticket)
            except GenerationError as error:
                logger.info("%s has failed: %s", ticket.record.id, error)
        await self._desk.close(ticket, following.choices)

"""Answers that nobody waits for: what they have cost is counted all the same."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from tasks.errors import GenerationError
from tasks.gateway.following import Following

if TYPE_CHECKING:
    from tasks.gateway.desk import Desk, Ticket

logger = logging.getLogger(__name__)


class Background:
    """Follows answers to their ends. If the gateway ends first, whoever reads an answer has it counted.

    Args:
        desk: counts.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._tasks: set[asyncio.Task[None]] = set()

    def attend(self, ticket: Ticket) -> None:
        """Follow an answer."""
        task = asyncio.create_task(self._follow(ticket))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self, ticket: Ticket) -> None:
        stirred = asyncio.Event()
        self._desk.open.add(ticket)
        async with Following(ticket.results, stirred) as following:
            try:
                while not following.is_over:
                    await stirred.wait()
                    following.take()
            except GenerationError as error:
                logger.info("%s has failed: %s", ticket.record.id, error)
        await self._desk.close(ticket, following.choices)

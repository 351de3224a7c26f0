"""Ends the open answers of API keys that were revoked."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from tasks.errors import GenerationError

if TYPE_CHECKING:
    from tasks.gateway.answers.desk import Desk
    from tasks.gateway.records.store import Store

logger = logging.getLogger(__name__)

#: The longest that an answer goes on after its key was revoked.
LOOK_S = 3.0


class Revocation:
    """Ends the open answers of keys that were revoked.

    Args:
        store: has the keys.
        desk: has the answers.
    """

    def __init__(self, store: Store, desk: Desk) -> None:
        self._store = store
        self._desk = desk

    async def watch(self) -> None:
        """Look again and again, as long as anybody with a key has an answer open."""
        while True:
            await asyncio.sleep(LOOK_S)
            owners = {ticket.key.id for ticket in self._desk.open}
            try:
                revoked = await asyncio.to_thread(self._store.revoked, owners)
            except GenerationError as error:  # the next look is soon
                logger.warning("API keys could not be looked for: %s", error)
            else:
                self._end(revoked)

    def _end(self, revoked: set[str]) -> None:
        for ticket, lock_out in list(self._desk.open.items()):
            if ticket.key.id in revoked:
                logger.info("%s ends: its API key %s was revoked", ticket.record.id, ticket.key.id)
                lock_out()

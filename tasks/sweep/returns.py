"""Messages that workers hold which are not there any more: they go back to the front of their queues."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from tasks.broker.channel import unacked
from tasks.registry import scripts
from tasks.registry.registry import SWEPT_TTL_S
from tasks.registry.values import text
from tasks.server import keys
from tasks.server.connection import translated

if TYPE_CHECKING:
    from collections.abc import Container

    import redis

    from tasks.sweep.ends import Ends

logger = logging.getLogger(__name__)


class Returns:
    """Gives back the messages that dead workers held. Two sweeps may do it at once: each message comes back once.

    Args:
        client: answers in bytes.
        ends: ends requests that must not run again.
    """

    def __init__(self, client: redis.Redis, ends: Ends) -> None:
        self._client = client
        self._ends = ends
        self._condemn = client.register_script(scripts.source("condemn"))
        self._disown = client.register_script(scripts.source("disown"))

    def return_work(self, living: Container[str]) -> None:
        """Restore the messages of every worker that is not among the living: dead, superseded, or gone without a word.

        Args:
            living: ``node#boot`` of the workers that are there.

        Raises:
            BrokerUnavailable: Redis cannot be reached or refuses for now.
        """
        with translated("looking for owners of messages"):
            owners: Any = self._client.smembers(keys.OWNERS)
        for identity in sorted(text(owner) for owner in owners):
            if identity in living:
                continue
            with translated(f"sweeping {identity}"):
                gone = self._condemn([keys.alive(identity), keys.swept(identity)], [SWEPT_TTL_S])
            if gone:
                self._restore(identity)

    def _restore(self, identity: str) -> None:
        for held in unacked.held(self._client, identity):
            self._ends.end_if_final(held.task_id)
        restored = unacked.restore(self._client, identity)
        if restored:
            logger.warning("sweep: gave back %d requests of %s: %s", len(restored), identity, ", ".join(restored))
        with translated(f"forgetting {identity}"):
            self._disown([keys.unacked(identity), keys.OWNERS], [identity])

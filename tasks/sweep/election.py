"""One among several beats sweeps: the one that holds a lock."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tasks.errors import BrokerUnavailable
from tasks.registry import scripts
from tasks.registry.lifeline import Lifeline
from tasks.server import keys
from tasks.server.connection import translated

if TYPE_CHECKING:
    import redis

logger = logging.getLogger(__name__)

#: The lock outlives this many rounds, and at least this long: a beat that is busy for a moment keeps it.
LOCK_ROUNDS = 6
LOCK_AT_LEAST_S = 3.0


class Election:
    """Takes the lock, and keeps it.

    It asks on a connection that never reconnects unseen: a sweep that loses it must not believe in absences for a while.

    Args:
        client: says where Redis is.
        by: whose sweep this is.
        round_s: time between two rounds.
    """

    def __init__(self, client: redis.Redis, by: str, round_s: float) -> None:
        self._by = by
        self._lock_ms = int(max(LOCK_AT_LEAST_S, LOCK_ROUNDS * round_s) * 1000)
        self._lifeline = Lifeline(client, f"sweep@{by}")
        self._elect = client.register_script(scripts.source("elect"))

    def held(self) -> bool:
        """Whether this sweep has the lock; takes it where nobody has it, and has it last longer.

        Raises:
            BrokerUnavailable: Redis cannot be reached, or the connection was lost.
        """
        known = self._lifeline.client_id
        client = self._lifeline.connect()
        if known and self._lifeline.client_id != known:
            raise BrokerUnavailable("electing a sweep: Redis had closed the connection")
        with translated("electing a sweep"):
            return bool(self._elect([keys.SWEEP_LOCK], [self._by, self._lock_ms], client))

    def resign(self) -> None:
        """Give the lock to others at once."""
        try:
            with translated("giving back the sweep's lock"):
                self._elect([keys.SWEEP_LOCK], [self._by, 0])
        except BrokerUnavailable:
            logger.info("sweep: Redis is away, the lock expires")
        self.close()

    def close(self) -> None:
        """Give the connection up; the next question makes another."""
        self._lifeline.close()

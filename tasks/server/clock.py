"""Redis's clock, as a process that looks at it now and then knows it. Clocks of two machines differ; there is one Redis."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from tasks.errors import GenerationError
from tasks.server.connection import translated

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

#: The time that a look is good for: crystals drift by less than a millisecond in it.
FRESH_S = 30.0


class ServerClock:
    """Unix time by Redis's clock. Every thread may ask.

    Between looks it goes on by this machine's monotonic clock, so a change of this machine's time changes nothing. Where Redis
    cannot be asked, the last look counts, and before the first one this machine's own time.

    Args:
        read: reads Redis's clock.
        monotonic: monotonic seconds.
        wall: this machine's time.
    """

    def __init__(
        self,
        read: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._read = read
        self._monotonic = monotonic
        self._wall = wall
        self._lock = threading.Lock()
        self._looked_at = float("-inf")
        self._ahead_s: float | None = None

    def now(self) -> float:
        """Unix seconds."""
        with self._lock:
            started = self._monotonic()
            due = started - self._looked_at >= FRESH_S
            if due:
                self._looked_at = started  # others use the last look meanwhile
        if due:
            self._look(started)
        ahead_s = self._ahead_s
        return self._wall() if ahead_s is None else self._monotonic() + ahead_s

    def _look(self, started: float) -> None:
        try:
            found = self._read()
        except GenerationError:
            return
        # It was read half-way between question and answer, as far as anybody can tell.
        self._ahead_s = found - (started + self._monotonic()) / 2


def read_time(client: redis.Redis) -> float:
    """Read Redis's clock.

    Raises:
        BrokerUnavailable: Redis cannot be reached or refuses for now.
    """
    with translated("reading the time"):
        seconds, microseconds = client.time()
    return float(seconds) + microseconds / 1e6

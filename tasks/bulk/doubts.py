"""Requests of a bulk job that were lost: nobody will ever end them, and the job would wait for ever."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tasks.bulk.requests import Requests

#: The interval at which Redis is asked about silent requests.
LOOK_EVERY_S = 5.0


class Doubts:
    """Finds them by two looks in a row.

    A job looks for results and depends on no notice of them. What can hold it up is a request that Redis, or a worker, has lost.

    Args:
        requests: the job's.
        look_every_s: the time between two looks.
        clock: monotonic seconds.
    """

    def __init__(
        self, requests: Requests, look_every_s: float = LOOK_EVERY_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._requests = requests
        self._look_every_s = look_every_s
        self._clock = clock
        self._doubted: set[str] = set()
        self._look_at = 0.0
        self._heard = True

    def heard(self) -> None:
        """A request has ended."""
        self._heard = True

    def lost(self, task_ids: Iterable[str]) -> set[str]:
        """Those of the requests in flight that nobody knows, and, while nothing ends, those that nobody holds, whatever is known.

        Raises:
            BrokerUnavailable: Redis cannot be reached.
        """
        now = self._clock()
        if now < self._look_at:
            return set()
        self._look_at = now + self._look_every_s
        ids = list(task_ids)
        found = self._requests.unknown(ids)
        if not self._heard:
            found |= self._requests.unattended(ids)
        self._heard = False
        lost = found & self._doubted
        self._doubted = found - lost
        return lost

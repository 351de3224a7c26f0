"""Whose turn it is, among models that are loaded and models that wait: which requests, set aside, are taken; who gives way.

Pure, but for the models that it is told about. Times are monotonic seconds.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tasks.worker.engines.budget import Clear, Start

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tasks.worker.engines.backlog import Waiting
    from tasks.worker.engines.budget import Budget

logger = logging.getLogger(__name__)


class Asked(NamedTuple):
    """The models for which a worker takes requests that were set aside: before and after those of the queue itself."""

    first: list[str]
    last: list[str]


@dataclass(slots=True, frozen=True)
class Cold:
    """A model that could be loaded, and that requests of a queue wait for.

    Args:
        waiting: what waits, and since when.
        floor_bytes: what its engine needs at the least.
        elsewhere: whether another worker has it loaded.
    """

    waiting: Waiting
    floor_bytes: int
    elsewhere: bool


class Turns:
    """Decides about turns under one budget.

    Args:
        budget: the places, whose ``retiring`` is set here.
        fair_s: how long a model waits before others have to make room for it, and how long it then stays.
    """

    def __init__(self, budget: Budget, fair_s: float) -> None:
        self._budget = budget
        self._fair_s = fair_s
        #: The model that has waited for too long, and is loaded before all others.
        self.first: str | None = None

    def allow(self, name: str) -> bool:
        """Whether this model may be loaded now, if there is room."""
        return self.first in (None, name)

    def give(self, cold: Iterable[Cold], now: float) -> None:
        """Where models have waited for too long, give the longest waiting one its turn.

        Engines in its way take no more requests, and no other model is loaded before it: else small ones that come and go
        would keep a large one from ever finding enough room at once.

        Args:
            cold: the models that wait, the longest waiting first.
            now: the time.
        """
        late = (each for each in cold if not each.elsewhere and now - each.waiting.since >= self._fair_s)
        first = next(late, None)
        self.first = first.waiting.model if first is not None else None
        victims = self._budget.victims(first.floor_bytes, now, self._fair_s) if first is not None else []
        for place in self._budget.places:
            if place in victims and not place.retiring:
                logger.info("the engine of %s takes no more requests: another model has waited for long", place.name)
            place.retiring = place in victims

    def asked(
        self, cold: Iterable[Cold], warm: Iterable[tuple[str, str]], now: float, failing: Sequence[tuple[str, str]] = ()
    ) -> dict[str, Asked]:
        """By queue, the models whose requests are taken from where they were set aside.

        Args:
            cold: the models that wait to be loaded; those for which there is room are taken, the one whose turn it is first of
                all, others last of all.
            warm: queue and name of the models that are loaded.
            now: the time.
            failing: queue and name of the models whose requests are taken in order to fail.
        """
        lists: dict[str, Asked] = {}

        def of(queue: str) -> Asked:
            return lists.setdefault(queue, Asked([], []))

        for each in cold:
            queue, name = each.waiting.queue, each.waiting.model
            if self.allow(name) and isinstance(self._budget.decide(each.floor_bytes, now), Start | Clear):
                (of(queue).first if self.first == name else of(queue).last).append(name)
        for queue, name in (*warm, *failing):
            if name not in of(queue).first:
                of(queue).first.append(name)
        return lists

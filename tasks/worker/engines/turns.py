"""Decides which models a worker loads next, and from which aside lists it takes requests.

Pure, except for the reservations that it marks as retiring. Times are monotonic seconds.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from tasks.worker.engines.budget import Clear, Start

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tasks.models.key import EngineKey
    from tasks.worker.engines.backlog import Waiting
    from tasks.worker.engines.budget import Budget

logger = logging.getLogger(__name__)


class AsideLists(NamedTuple):
    """The aside lists of one queue that a worker takes requests from, by model: before and after the queue's own lists."""

    first: list[EngineKey]
    last: list[EngineKey]


@dataclass(slots=True, frozen=True)
class Wanted:
    """A model that set-aside requests wait for and that is not loaded here.

    Args:
        waiting: its aside list, and since when requests wait there.
        floor_bytes: the least that its engine needs.
        elsewhere: whether another worker has it loaded.
    """

    waiting: Waiting
    floor_bytes: int
    elsewhere: bool


class Turns:
    """Decides about turns under one budget.

    Args:
        budget: the reservations, whose ``retiring`` is set here.
        fair_s: how long a model waits before others have to make room for it, and how long it then stays.
    """

    def __init__(self, budget: Budget, fair_s: float) -> None:
        self._budget = budget
        self._fair_s = fair_s
        #: The model that has waited for too long, and is loaded before all others.
        self.next_key: EngineKey | None = None

    def may_load(self, key: EngineKey) -> bool:
        """Whether this model may be loaded now, if there is room."""
        return self.next_key in (None, key)

    def choose(self, wanted: Iterable[Wanted], now: float) -> None:
        """Give the model that has waited longest its turn, where models have waited for too long.

        Engines in its way take no more requests, and no other model is loaded before it. Otherwise small ones that come and go
        would keep a large one from ever finding enough room at once.

        Args:
            wanted: the models that wait, the longest waiting first.
            now: the time.
        """
        late = (model for model in wanted if not model.elsewhere and now - model.waiting.since >= self._fair_s)
        first = next(late, None)
        self.next_key = first.waiting.key if first is not None else None
        victims = self._budget.victims(first.floor_bytes, now, self._fair_s) if first is not None else []
        for reservation in self._budget.reservations:
            if reservation in victims and not reservation.retiring:
                logger.info(
                    "the engine of %s takes no more requests: another model has waited for long", reservation.key
                )
            reservation.retiring = reservation in victims

    def aside_lists(
        self,
        wanted: Iterable[Wanted],
        loaded: Iterable[tuple[str, EngineKey]],
        now: float,
        failing: Sequence[tuple[str, EngineKey]] = (),
    ) -> dict[str, AsideLists]:
        """By queue, the aside lists from which requests are taken.

        Args:
            wanted: the models that wait to be loaded. The lists of those for which there is room come last; that of the model
                whose turn it is comes first of all.
            loaded: queue and key of the models that are loaded.
            now: the time.
            failing: queue and key of the models whose requests are taken in order to fail.
        """
        lists: dict[str, AsideLists] = {}

        def of(queue: str) -> AsideLists:
            return lists.setdefault(queue, AsideLists([], []))

        for model in wanted:
            queue, key = model.waiting.queue, model.waiting.key
            if self.may_load(key) and isinstance(self._budget.decide(model.floor_bytes, now), Start | Clear):
                (of(queue).first if self.next_key == key else of(queue).last).append(key)
        for queue, key in (*loaded, *failing):
            if key not in of(queue).first:
                of(queue).first.append(key)
        return lists

"""The demand of waiting requests, and its effects: the next model, shares of memory, aside lists to take from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.worker.engines.turns import Wanted

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tasks.models.key import EngineKey
    from tasks.worker.engines.backlog import Backlog, Waiting
    from tasks.worker.engines.known import KnownModels
    from tasks.worker.engines.loading import Loading
    from tasks.worker.engines.turns import AsideLists, Turns
    from tasks.worker.engines.waiting import Waits
    from worker_config.catalogue import ModelEntry


@dataclass(slots=True, frozen=True)
class Look:
    """One look at the aside lists that are not empty, the longest waiting first, and their models that are known here."""

    waiting: Sequence[Waiting]
    entries: dict[EngineKey, ModelEntry]


class Demand:
    """Decides for whom engines are loaded and from which aside lists requests are taken.

    Args:
        known: the memory that models need.
        backlog: the set-aside requests, and the other workers.
        waits: the requests that wait in slots.
        loading: the engines.
        turns: whose turn it is.
        patience_s: how long requests of a model that nobody knows wait for a worker that does.
    """

    def __init__(
        self,
        known: KnownModels,
        backlog: Backlog,
        waits: Waits,
        loading: Loading,
        turns: Turns,
        patience_s: float,
    ) -> None:
        self._known = known
        self._backlog = backlog
        self._peers = backlog.peers
        self._waits = waits
        self._loading = loading
        self._turns = turns
        self._patience_s = patience_s
        #: The models of waiting requests that this worker's catalogue does not have, or that it cannot size.
        self.unknown: tuple[EngineKey, ...] = ()

    def look(self) -> Look:
        """Look at the aside lists now. Reads files of models, so without the worker's lock."""
        waiting = self._backlog.waiting()
        entries = self._known.entries(aside.key for aside in waiting)
        self.unknown = tuple(sorted({aside.key for aside in waiting} - entries.keys()))
        return Look(waiting, entries)

    def answer(self, look: Look, now: float) -> dict[str, AsideLists]:
        """Give a model its turn, divide the memory, and choose the aside lists, by queue. With the worker's lock held."""
        wanted = self._wanted(look.waiting)
        self._turns.choose(wanted, now)
        self._share(wanted)
        failing = [
            (aside.queue, aside.key)
            for aside in look.waiting
            if self._fails_everywhere(aside, look.entries.get(aside.key), now)
        ]
        return self._turns.aside_lists(wanted, self._loaded(look.waiting), now, failing)

    def share(self, waiting: Iterable[Waiting]) -> None:
        """Divide the rest of the budget, except the bytes that waiting models will need. With the worker's lock held."""
        self._share(self._wanted(waiting))

    def _share(self, wanted: Iterable[Wanted]) -> None:
        in_slots = [(wait.key, wait.floor_bytes) for wait in self._waits.all()]
        set_aside = [(model.waiting.key, model.floor_bytes) for model in wanted if not model.elsewhere]
        self._loading.share([*in_slots, *set_aside])

    def _wanted(self, waiting: Iterable[Waiting]) -> list[Wanted]:
        """The models that wait, that are neither here nor on their way, and that did not fail."""
        loading = self._loading
        wanted = []
        for aside in waiting:
            footprint = self._known.footprint(aside.key)
            if footprint is None or aside.key in loading.engines or aside.key in loading.downloads:
                continue
            if loading.failures.error_of(aside.key) is None:
                elsewhere = self._peers.have_loaded(aside.queue, aside.key)
                wanted.append(Wanted(aside, footprint.floor_bytes, elsewhere))
        return wanted

    def _loaded(self, waiting: Iterable[Waiting]) -> list[tuple[str, EngineKey]]:
        """The loaded models, by the queue of their requests, and by other queues that requests for them wait in."""
        loaded = [key for key, engine in self._loading.engines.items() if engine.serves]
        return [
            *((self._known.queue(key), key) for key in loaded),
            *((aside.queue, aside.key) for aside in waiting if aside.key in loaded),
        ]

    def _fails_everywhere(self, aside: Waiting, entry: ModelEntry | None, now: float) -> bool:
        """Whether these requests are taken in order to fail: no other worker can run them, and this one cannot either.

        The model failed to load a short time ago, or it is too large for every live worker, or the workers that knew it have
        been gone for longer than a restart takes.
        """
        footprint = self._known.footprint(aside.key)
        if self._peers.have_loaded(aside.queue, aside.key):
            return False
        if self._loading.failures.error_of(aside.key) is not None:
            return True
        if entry is None:
            waited_s = now - aside.since
            return waited_s >= self._patience_s and not self._peers.may_know(aside.queue, aside.key)
        return (
            footprint is not None
            and footprint.floor_bytes > self._loading.budget.most_bytes
            and not self._peers.could_load(aside.queue, entry)
        )

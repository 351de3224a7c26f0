"""The watch over a worker's engines: which of them stall or idle, whose turn it is, and which lanes the worker takes from."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from tasks.errors import GenerationError, ModelLoadFailed
from tasks.models.key import key_of
from tasks.worker.engines.turns import Lanes, Wanted
from tasks.worker.engines.waiting import WAIT_S
from worker_config.catalogue import ModelNotAllowed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tasks.models.key import EngineKey
    from tasks.worker.changes import Action, Changes
    from tasks.worker.engines.backlog import Backlog, Waiting
    from tasks.worker.engines.engine import Engine
    from tasks.worker.engines.known import KnownModels
    from tasks.worker.engines.loading import Loading
    from tasks.worker.engines.peers import Peers
    from tasks.worker.engines.turns import Turns
    from worker_config.catalogue import Catalogue, ModelEntry
    from worker_config.settings import Settings

logger = logging.getLogger(__name__)

#: Changes within this time are looked at together.
DEBOUNCE_S = 0.02


class EngineWatch(threading.Thread):
    """Looks at the engines after every change, and every :data:`tasks.worker.engines.waiting.WAIT_S`.

    Args:
        changes: the worker's lock.
        loading: the engines.
        turns: whose turn it is.
        known: what models need.
        backlog: what waits in lanes.
        peers: the other workers.
        catalogue: the models.
        settings: the time-outs.
        preload: begins to load a model that no request waits for.
        coming: the models that requests in slots wait for, and what each needs at the least.
        on_lanes: called when :meth:`lanes` has another answer; on this thread.
    """

    def __init__(
        self,
        changes: Changes,
        loading: Loading,
        turns: Turns,
        known: KnownModels,
        backlog: Backlog,
        peers: Peers,
        catalogue: Catalogue,
        settings: Settings,
        preload: Callable[[ModelEntry], list[Action]],
        coming: Callable[[], Iterable[tuple[EngineKey, int]]],
        on_lanes: Callable[[], None],
    ) -> None:
        super().__init__(name="engines", daemon=True)
        self._changes = changes
        self._loading = loading
        self._turns = turns
        self._known = known
        self._backlog = backlog
        self._peers = peers
        self._catalogue = catalogue
        self._settings = settings
        self._preload = preload
        self._coming = coming
        self._on_lanes = on_lanes
        self._lanes: dict[str, Lanes] = {}
        #: The models of waiting requests that this worker's catalogue does not have, or that it cannot size.
        self.unknown: tuple[EngineKey, ...] = ()
        self._ending = threading.Event()

    def run(self) -> None:
        """Look until :meth:`stop`."""
        while not self._ending.wait(DEBOUNCE_S):
            with self._changes:
                seen = self._changes.count
            try:
                self.look(time.monotonic())
            except Exception:
                # Never let this thread die: without it no engine is replaced and no model gets its turn.
                logger.exception("a look at the engines failed")
            self._changes.wait_for_change(seen, WAIT_S)

    def stop(self) -> None:
        """End the thread."""
        self._ending.set()
        with self._changes:
            self._changes.notify()
        if self.is_alive():
            self.join()

    def lanes(self, queue: str) -> Lanes:
        """The lanes of this queue that requests are taken from now. Never waits."""
        return self._lanes.get(queue) or Lanes([], [])

    def look(self, now: float) -> None:
        """End what stalls or idles, load what is pinned, give waiting models their turn, and choose the lanes."""
        waiting = self._backlog.waiting()
        entries = self._look_up(waiting)
        self.unknown = tuple(sorted({lane.key for lane in waiting} - entries.keys()))
        actions: list[Action] = []
        with self._changes:
            for engine in list(self._loading.engines.values()):
                if self._idles_too_long(engine, now):
                    idle_s = now - engine.reservation.used_at
                    actions += self._loading.end(engine, f"after {idle_s:.0f} s without a request")
            for entry in self._loading.pinned.values():
                if self._loading.failures.error_of(entry.name) is None:
                    actions += self._preload(entry)
            wanted = self.wanted(waiting)
            self._turns.choose(wanted, now)
            self.share(wanted)
            failing = [lane for lane in waiting if self._fails_everywhere(lane, entries.get(lane.key), now)]
            taken_to_fail = [(lane.queue, lane.key) for lane in failing]
            lanes = self._turns.lanes(wanted, self._loaded(waiting), now, taken_to_fail)
            engines = list(self._loading.engines.values())
        for action in actions:
            action()
        for engine in engines:
            self._end_if_stuck(engine)
        if lanes != self._lanes:
            self._lanes = lanes
            self._on_lanes()

    def wanted(self, waiting: Iterable[Waiting]) -> list[Wanted]:
        """The models that wait, that are neither here nor on their way, and that did not fail. With the lock held."""
        loading = self._loading
        wanted = []
        for lane in waiting:
            footprint = self._known.footprint(lane.key)
            if footprint is None or lane.key in loading.engines or lane.key in loading.downloads:
                continue
            if loading.failures.error_of(lane.key) is None:
                elsewhere = self._peers.have_loaded(lane.queue, lane.key)
                wanted.append(Wanted(lane, footprint.floor_bytes, elsewhere))
        return wanted

    def share(self, wanted: Iterable[Wanted]) -> None:
        """Divide what is left over of the budget, except what models that wait will need. With the lock held."""
        if not self._ending.is_set():
            lanes = [(model.waiting.key, model.floor_bytes) for model in wanted if not model.elsewhere]
            self._loading.share([*self._coming(), *lanes])

    def _look_up(self, waiting: Iterable[Waiting]) -> dict[EngineKey, ModelEntry]:
        """Look up what is known of the models that requests wait for, where this worker's catalogue has them. Reads files."""
        entries = {}
        for lane in waiting:
            with suppress(ModelNotAllowed, GenerationError):  # others may know it
                entry = self._catalogue.resolve(lane.key)
                self._known.look_up(entry)
                entries[lane.key] = entry
        return entries

    def _loaded(self, waiting: Iterable[Waiting]) -> list[tuple[str, EngineKey]]:
        """The loaded models, by the queue of their requests, and by other queues that requests for them wait in."""
        loaded = [key for key, engine in self._loading.engines.items() if engine.serves]
        return [
            *((self._known.queue(key), key) for key in loaded),
            *((lane.queue, lane.key) for lane in waiting if lane.key in loaded),
        ]

    def _fails_everywhere(self, lane: Waiting, entry: ModelEntry | None, now: float) -> bool:
        """Whether requests of this lane are taken in order to fail: no other worker can run them, and this one cannot either.

        The model failed to load a short time ago, or it is too large for every live worker, or the workers that knew it have
        been gone for longer than a restart takes.
        """
        footprint = self._known.footprint(lane.key)
        if self._peers.have_loaded(lane.queue, lane.key):
            return False
        if self._loading.failures.error_of(lane.key) is not None:
            return True
        if entry is None:
            waited_s = now - lane.since
            return waited_s >= self._settings.fair_wait_s and not self._peers.may_know(lane.queue, lane.key)
        return (
            footprint is not None
            and footprint.floor_bytes > self._loading.budget.most_bytes
            and not self._peers.could_load(lane.queue, entry)
        )

    def _idles_too_long(self, engine: Engine, now: float) -> bool:
        keep_s = engine.keep_alive_s
        if keep_s is None:
            keep_s = engine.entry.keep_alive_s
        if keep_s is None:
            keep_s = self._settings.keep_alive_s
        return keep_s > 0 and engine.reservation.idle and now - engine.reservation.used_at > keep_s

    def _end_if_stuck(self, engine: Engine) -> None:
        stall_s, load_s = self._settings.stall_timeout_s, self._settings.load_timeout_s
        if engine.stalled(stall_s):
            logger.error(
                "engine %s of %s made no step for %.0f s although it has work; it is replaced",
                *(engine.pid, engine.entry.name, stall_s),
            )
            engine.kill()
        elif engine.reservation.state == "loading" and time.monotonic() - engine.reservation.since > load_s:
            engine.give_up(ModelLoadFailed(f"model {key_of(engine.entry)!r} was not loaded within {load_s:g} s"))

"""Starts and ends engines under one budget of bytes.

Every method is called with the worker's lock held. It decides, and returns actions that run once the lock is released:
starting and ending processes.
"""

from __future__ import annotations

import logging
import time
from copy import copy
from functools import partial
from typing import TYPE_CHECKING

from tasks.errors import GenerationError, OutOfMemory
from tasks.models.footprint import measured
from tasks.models.key import EngineKey, key_of
from tasks.worker.engines.budget import Budget, Clear, Later, Never, Reservation, Start
from tasks.worker.engines.engine_state import state_of
from tasks.worker.engines.waiting import Interrupted, TooLarge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tasks.messages.registry import EngineState
    from tasks.models.footprint import Footprint, Source
    from tasks.worker.engines.changes import Action
    from tasks.worker.engines.download import Download
    from tasks.worker.engines.engine import Engine
    from tasks.worker.engines.failures import Failures
    from tasks.worker.engines.known import Known, KnownModels
    from tasks.worker.engines.launcher import Launcher
    from tasks.worker.engines.turns import Turns
    from tasks.worker.engines.waiting import LoadWait
    from worker_config.catalogue import ModelEntry

logger = logging.getLogger(__name__)

#: The device of an engine, in words.
PLACES = {"metal": "GPU (Metal)", "cuda": "GPU (CUDA)", "cpu": "CPU", "fake": "fake engine"}


class Loading:
    """The engines and downloads of one worker.

    Args:
        launcher: makes engines and downloads.
        budget: the bytes, and the engines that have them.
        known: the memory that models need.
        failures: which models cannot be loaded.
        turns: which model may be loaded next.
        finish: waits for the last requests of an engine and ends it; runs on a thread of its own.
    """

    def __init__(
        self,
        launcher: Launcher,
        budget: Budget,
        known: KnownModels,
        failures: Failures,
        turns: Turns,
        finish: Callable[[Engine], None],
    ) -> None:
        self._launcher = launcher
        self._known = known
        self._turns = turns
        self._finish = finish
        self.budget = budget
        self.failures = failures
        self.engines: dict[EngineKey, Engine] = {}
        #: Engines that take no more requests and whose processes are not gone yet.
        self.leaving: list[Engine] = []
        self.downloads: dict[EngineKey, Download] = {}
        #: Models that stay loaded.
        self.pinned: dict[EngineKey, ModelEntry] = {}
        #: Why no engine can be started from what is installed now; empty if one can.
        self.outdated = ""
        #: Engines that were started, and engines that died or stalled, so far.
        self.loads = 0
        self.restarts = 0

    def states(self) -> list[EngineState]:
        """All engines, as the registry shows them, the models on their way, and those that failed."""
        leaving = [engine for engine in self.leaving if engine.failure is None]
        states = [state_of(engine) for engine in (*self.engines.values(), *leaving)]
        states += [download.state() for download in self.downloads.values()]
        known = {state.model for state in states if state.state != "ending"}
        return [*states, *(state for state in self.failures.states() if state.model not in known)]

    def bring(self, wait: LoadWait, known: Known) -> list[Action]:
        """Take the next step towards a loaded model: fetch it, make room for it, or start its engine.

        Raises:
            TooLarge: it does not fit into this worker.
            GenerationError: it failed a short time ago.
            Interrupted: this worker starts no engine any more.
        """
        if self.outdated:
            raise Interrupted("outdated")
        if error := self.failures.error_of(wait.key):
            # A copy: each raise of one object adds to its traceback, which is stored with every result.
            raise copy(error)
        decision = self.budget.decide(known.footprint.floor_bytes, time.monotonic())
        wait.floor_bytes = known.footprint.floor_bytes
        wait.soon = False
        actions: list[Action] = []
        if isinstance(decision, Never):
            raise TooLarge(decision.most_bytes)
        if self.failures.pause_s(wait.key) > 0:
            wait.soon = True
        elif known.source is None:
            actions = self._fetch(wait)
        elif not self._turns.may_load(wait.key):
            pass
        elif isinstance(decision, Start):
            wait.began = True
            actions = self._start(wait.entry, known.source, known.footprint)
        elif isinstance(decision, Clear):
            wait.soon = True
            actions = self._clear(decision, wait.entry.name)
        elif isinstance(decision, Later):
            wait.soon = decision.soon
        return actions

    def end(self, engine: Engine, why: str) -> list[Action]:
        """Take no more requests for this engine, and end it when those that it has are done."""
        logger.info("ending the engine of %s %s", engine.entry.name, why)
        reservation = engine.reservation
        if (
            reservation.users
            and reservation.held_bytes > reservation.floor_bytes
            and reservation.target_bytes is None
            and reservation.state == "ready"
        ):
            # Others need not wait for more than its last requests need.
            self._resize(engine, reservation.floor_bytes)
        del self.engines[key_of(engine.entry)]
        reservation.state = "ending"
        self.leaving.append(engine)
        return [partial(self._finish, engine)]

    def ended(self, engine: Engine) -> None:
        """Note that the process of a leaving engine is gone, and free its bytes."""
        self.leaving.remove(engine)
        self.budget.reservations.remove(engine.reservation)

    def share(self, coming: Iterable[tuple[EngineKey, int]]) -> None:
        """Divide the rest of the budget among the loaded engines, except the bytes that are about to be needed.

        Args:
            coming: models that wait to be loaded, and the least that each needs; the first in turn comes first.
        """
        floors: dict[EngineKey, int] = {}
        for key, floor_bytes in coming:
            if key not in self.engines:
                floors.setdefault(key, floor_bytes)
        by_reservation = {id(engine.reservation): engine for engine in self.engines.values()}
        for reservation, size_bytes in self.budget.shares(floors.values()):
            self._resize(by_reservation[id(reservation)], size_bytes, reservation.share_bytes)
        for reservation in self.budget.promises():
            self._resize(by_reservation[id(reservation)], reservation.held_bytes, reservation.share_bytes)

    def engine_changed(self, engine: Engine) -> list[Action]:
        """Note that an engine became ready, failed, ended or has reached another size."""
        actions: list[Action] = []
        current = self.engines.get(key_of(engine.entry)) is engine
        self.outdated = self.outdated or engine.outdated
        if current and engine.gone:
            self.restarts += 1
        if current and engine.crash is not None and engine.failure is None:
            engine.failure = self.failures.crashed(engine.entry.name, str(engine.crash))
        if current and engine.failure is not None:
            self.fail(engine.entry, engine.failure)
            actions = self.end(engine, "because it failed to load")
        elif current and engine.gone:
            actions = self.end(engine, "because its process is gone")
        elif engine.ready is not None and engine.reservation.state == "loading":
            actions = self._loaded(engine)
        if engine.size_bytes is not None:
            self.budget.target_reached(engine.reservation, engine.size_bytes)
        return actions

    def download_changed(self, download: Download) -> None:
        """Note the progress or the end of a download."""
        key = key_of(download.entry)
        if not download.done or self.downloads.get(key) is not download:
            return
        del self.downloads[key]
        if download.source is not None:
            self._known.fetched(key, download.source)
            return
        error: GenerationError | None = download.error
        if download.outdated:
            self.outdated = self.outdated or download.outdated
            return
        if download.killed:
            error = self.failures.crashed(download.entry.name, str(error))
        if error is not None:
            self.fail(download.entry, error)

    def fail(self, entry: ModelEntry, error: GenerationError) -> None:
        """Note that a model could not be loaded."""
        self.failures.note(entry.name, error)
        self._known.forget_source(key_of(entry))

    def _fetch(self, wait: LoadWait) -> list[Action]:
        wait.download = self.downloads.get(wait.key)
        if wait.download is not None:
            return []
        wait.began = True
        wait.download = self.downloads[wait.key] = self._launcher.download(wait.entry)
        return [wait.download.start]

    def _start(self, entry: ModelEntry, source: Source, footprint: Footprint) -> list[Action]:
        key, size_bytes = key_of(entry), footprint.floor_bytes
        reservation = Reservation(key, size_bytes, size_bytes, time.monotonic(), sizable=size_bytes > 0)
        reservation.pinned = key in self.pinned
        logger.info("loading model %s, %s reserved", entry.name, gb(size_bytes))
        engine = self.engines[key] = self._launcher.engine(entry, source, reservation, footprint)
        self.budget.reservations.append(reservation)
        self.loads += 1
        return [engine.start]

    def _clear(self, decision: Clear, name: str) -> list[Action]:
        engines = {id(engine.reservation): engine for engine in self.engines.values()}
        actions: list[Action] = []
        for reservation in decision.end:
            actions += self.end(engines[id(reservation)], f"to make room for {name}")
        for reservation, size_bytes in decision.shrink:
            self._resize(engines[id(reservation)], size_bytes)
        return actions

    def _resize(self, engine: Engine, size_bytes: int, promised_bytes: int = 0) -> None:
        # At once, and not as an action: it only queues a message, which has to be before those of requests that rely on it.
        self.budget.set_target(engine.reservation, size_bytes, time.monotonic())
        engine.reservation.promised_bytes = promised_bytes
        engine.resize(size_bytes, max(size_bytes, promised_bytes))

    def _loaded(self, engine: Engine) -> list[Action]:
        """Note that an engine is ready: its measured footprint replaces the expected one."""
        name, reservation, ready = engine.entry.name, engine.reservation, engine.ready
        assert ready is not None
        if reservation.sizable:
            engine.footprint = measured(ready, engine.footprint, engine.config.prefill_step_tokens)
            self._known.measured(key_of(engine.entry), engine.footprint)
            if ready.weights_bytes > reservation.held_bytes - engine.footprint.process_bytes:
                error = OutOfMemory(
                    f"model {name!r} takes {gb(engine.footprint.floor_bytes)} now that it is loaded, where its files "
                    f"promised {gb(reservation.held_bytes)}: try again, and it is given what it needs"
                )
                return [partial(engine.give_up, error)]
            reservation.floor_bytes = min(reservation.held_bytes, engine.footprint.floor_bytes)
        reservation.state = "ready"
        reservation.since = reservation.used_at = time.monotonic()
        self.failures.forget(name)
        logger.info(
            "model %s is loaded after %.1f s: %s of weights, on the %s, revision %s",
            *(name, ready.load_s, gb(ready.weights_bytes), PLACES[ready.accelerator], ready.revision),
        )
        return []


def gb(size_bytes: int) -> str:
    """A size for people."""
    return f"{size_bytes / 1e9:.2f} GB"

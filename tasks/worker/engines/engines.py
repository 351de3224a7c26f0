"""The engines of one worker: loaded on first request, watched, replaced when they die, ended for others or when they idle.

A request whose model is not loaded waits here, in its slot, while the model loads. Where others have to end their work first,
it moves to its model's aside list (:mod:`tasks.broker.queues.aside`), where it takes no slot and any worker that can run it may
take it. docs/models.md has the rules.

Decisions are made with the lock of :class:`tasks.worker.engines.changes.Changes` held, and carried out after it is released.
"""

from __future__ import annotations

import logging
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from tasks.errors import OutOfMemory
from tasks.models.key import key_of
from tasks.worker.engines.admission import Admission
from tasks.worker.engines.budget import Budget
from tasks.worker.engines.demand import Demand
from tasks.worker.engines.known import KnownModels
from tasks.worker.engines.launcher import Launcher
from tasks.worker.engines.loading import Loading
from tasks.worker.engines.preloads import Preloads
from tasks.worker.engines.turns import Turns
from tasks.worker.engines.upkeep import Upkeep
from tasks.worker.engines.waiting import WAIT_S, Waits
from tasks.worker.engines.watch import EngineWatch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tasks.messages.engine import StepOutput
    from tasks.messages.registry import EngineState
    from tasks.models.key import EngineKey
    from tasks.worker.attempts.job import Job
    from tasks.worker.attempts.publisher import Publisher
    from tasks.worker.engines.backlog import Backlog, Waiting
    from tasks.worker.engines.changes import Action, Changes
    from tasks.worker.engines.download import Download
    from tasks.worker.engines.engine import Engine
    from tasks.worker.engines.failures import Failures
    from tasks.worker.engines.listener import Listener
    from tasks.worker.engines.turns import AsideLists
    from tasks.worker.profile.profile import Profile
    from worker_config.catalogue import ModelEntry

logger = logging.getLogger(__name__)


class Engines:
    """All engines of this worker, under one budget of bytes. Nothing happens before :meth:`start`.

    Args:
        profile: the worker's settings, models and machine.
        changes: the lock.
        backlog: the set-aside requests, and the other workers.
        publisher: where entries of requests go.
        listener: is told of changes.
        failures: which models cannot be loaded.
    """

    def __init__(
        self,
        profile: Profile,
        changes: Changes,
        backlog: Backlog,
        publisher: Publisher,
        listener: Listener,
        failures: Failures,
    ) -> None:
        settings, capacity = profile.settings, profile.capacity
        self._changes = changes
        self._backlog = backlog
        self._announce = listener.engines_changed
        self._leave = listener.code_replaced
        self._closing = threading.Event()
        self._known = KnownModels(profile.catalogue, capacity, settings.prefill_step_tokens)
        budget = Budget(capacity.budget_bytes)
        turns, waits = Turns(budget, settings.fair_wait_s), Waits(capacity.most_batch, backlog.queues)
        launcher = Launcher(profile, publisher, listener.stepped, self._on_engine, self._on_download)
        self._loading = Loading(launcher, budget, self._known, failures, turns, self._finish)
        self._admission = Admission(changes, self._loading, self._known, backlog, waits, self._closing, self._announce)
        self._preloads = Preloads(changes, self._loading, self.acquire, self.release, self._announce)
        self._demand = Demand(self._known, backlog, waits, self._loading, turns, settings.fair_wait_s)
        upkeep = Upkeep(settings, self._loading, self._preloads)
        self._watch = EngineWatch(changes, upkeep, self._demand, listener.aside_lists_changed)

    def start(self) -> None:
        """Begin to watch."""
        self._watch.start()

    def acquire(self, entry: ModelEntry, job: Job | None = None) -> Engine:
        """The engine of this model, loaded; starts it if need be. Give it back with :meth:`release`.

        Raises:
            GenerationError: it cannot be loaded: now, or ever, here or anywhere.
            Interrupted: the job was stopped meanwhile.
            SetAside: another worker may run the request, or this one later.
        """
        return self._admission.acquire(entry, job)

    def release(self, engine: Engine, keep_alive_s: float | None = None) -> None:
        """A request is done with this engine, which may now idle for so long; ``None`` for as long as usual."""
        with self._changes:
            engine.reservation.users -= 1
            engine.reservation.used_at = time.monotonic()
            engine.keep_alive_s = keep_alive_s
            self._changes.notify()

    def load(self, entry: ModelEntry, *, pin: bool = False) -> None:
        """Begin to load a model; a pinned one stays, and is loaded again should its engine die.

        Raises:
            GenerationError: it can never be loaded here.
        """
        floor_bytes = self._known.look_up(entry).footprint.floor_bytes
        with self._changes.deciding() as actions:
            budget = self._loading.budget
            if key_of(entry) not in self._loading.engines and floor_bytes > budget.most_bytes:
                raise OutOfMemory(self._admission.why_too_large(entry, floor_bytes, budget.most_bytes))
            actions.extend(self._preloads.pin(entry) if pin else self._preloads.begin(entry))
        self._announce()

    def keep(self, entry: ModelEntry) -> None:
        """Load a model, and load it again whenever it is gone; its engine is never ended for another."""
        with self._changes.deciding() as actions:
            actions.extend(self._preloads.pin(entry))

    def unload(self, key: EngineKey) -> bool:
        """End the engine of a model once its requests are done, and unpin it; ``False`` if there is none."""
        with self._changes.deciding() as actions:
            self._loading.pinned.pop(key, None)
            engine = self._loading.engines.get(key)
            if engine is not None:
                actions.extend(self._loading.end(engine, "because somebody asked for it"))
                actions.append(self._announce)
        return engine is not None

    def aside_lists(self, queue: str) -> AsideLists:
        """The aside lists of this queue that requests are taken from now. Never waits."""
        return self._watch.aside_lists(queue)

    @property
    def unknown(self) -> tuple[EngineKey, ...]:
        """The models of waiting requests that this worker's catalogue does not have, or that it cannot size."""
        return self._demand.unknown

    def queues(self) -> dict[EngineKey, str]:
        """The queues of the loaded models, by their files."""
        with self._changes:
            loaded = [key for key, engine in self._loading.engines.items() if engine.serves]
        return {key: queue for key in loaded if (queue := self._known.queue(key))}

    def states(self) -> list[EngineState]:
        """All engines, as the registry shows them, the models on their way, and those that failed."""
        with self._changes:
            return self._loading.states()

    def state_of(self, name: str) -> str:
        """Return the state of one model: ``ready``, ``loading``, ``downloading``, ``failed``, or ``waiting`` for room."""
        states = self.states()
        return next((state.state for state in states if state.model == name and state.state != "ending"), "waiting")

    def degraded(self) -> str:
        """Return why this worker cannot serve what it should; empty if it can."""
        with self._changes:
            return self._loading.failures.degraded()

    @property
    def loading(self) -> bool:
        """Whether a model is being loaded."""
        with self._changes:
            engines = self._loading.engines.values()
            return self._preloads.active or any(engine.reservation.state == "loading" for engine in engines)

    @property
    def room_bytes(self) -> int:
        """The bytes that the largest model that could be loaded may need."""
        with self._changes:
            return max(0, self._loading.budget.most_bytes)

    @property
    def loads(self) -> int:
        """The number of engines started so far."""
        return self._loading.loads

    @property
    def restarts(self) -> int:
        """The number of engines that died or stalled so far."""
        return self._loading.restarts

    def pids(self) -> list[int]:
        """The processes, for usage."""
        with self._changes:
            engines = (*self._loading.engines.values(), *self._loading.leaving)
            return [engine.pid for engine in engines if engine.pid is not None]

    def last_steps(self) -> list[StepOutput]:
        """The last step of each engine, for MLX's own figures."""
        with self._changes:
            return [engine.last for engine in self._loading.engines.values() if engine.last is not None]

    def close(self) -> None:
        """End all engines and downloads."""
        self._closing.set()
        self._watch.stop()
        with self._changes:
            self._loading.pinned.clear()
            engines = [*self._loading.engines.values(), *self._loading.leaving]
            downloads = list(self._loading.downloads.values())
            self._loading.engines.clear()
            self._changes.notify()
        for download in downloads:
            download.stop()
        threads = [threading.Thread(target=engine.close, daemon=True) for engine in engines]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    # The reports of engines and downloads, on threads of theirs.

    def _on_engine(self, engine: Engine) -> None:
        waiting = self._backlog.waiting()
        with self._changes.deciding() as actions:
            was_outdated = self._loading.outdated
            actions.extend(self._loading.engine_changed(engine))
            self._leave_if_outdated(was_outdated, actions)
            self._share(waiting)
            actions.append(self._announce)
            self._changes.notify()

    def _on_download(self, download: Download) -> None:
        with self._changes.deciding() as actions:
            if not self._closing.is_set():
                was_outdated = self._loading.outdated
                self._loading.download_changed(download)
                self._leave_if_outdated(was_outdated, actions)
            if download.done:
                actions.append(self._announce)
            self._changes.notify()

    def _leave_if_outdated(self, before: str, actions: list[Action]) -> None:
        """Say once that no engine can be started any more."""
        if self._loading.outdated and not before:
            actions.append(partial(self._leave, self._loading.outdated))

    def _finish(self, engine: Engine) -> None:
        """End a leaving engine when its requests are done, on a thread of its own; only then are its bytes free."""

        def finish() -> None:
            while engine.reservation.users and not engine.gone and not self._closing.is_set():
                with self._changes:
                    seen = self._changes.count
                if engine.reservation.users:
                    self._changes.wait_for_change(seen, WAIT_S)
            engine.close()
            waiting = self._backlog.waiting()
            with self._changes.deciding() as actions:
                self._loading.ended(engine)
                self._share(waiting)
                actions.append(self._announce)
                self._changes.notify()

        threading.Thread(target=finish, name=f"engine-end-{engine.pid}", daemon=True).start()

    def _share(self, waiting: Iterable[Waiting]) -> None:
        if not self._closing.is_set():
            self._demand.share(waiting)

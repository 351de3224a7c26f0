"""The engines of one worker: loaded on first request, watched, replaced when they die, ended for others or when they idle.

A request whose model is not loaded waits here while the model loads. Where others have to end their work first, it is set
aside (:mod:`tasks.broker.aside`), so that it takes no slot and any worker that can run it may take it; :meth:`Engines.asked`
says for which models this worker takes such requests just now. docs/models.md has the rules.
"""

from __future__ import annotations

import logging
import threading
import time
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from tasks.errors import GenerationError, ModelLoadFailed, OutOfMemory
from tasks.messages.engine import EngineConfig
from tasks.messages.registry import EngineState
from tasks.models.footprint import expected, local_source, measured
from tasks.models.routing import queue_for_model
from tasks.worker.engines.budget import Budget, Clear, Later, Never, Place, Start
from tasks.worker.engines.download import Download
from tasks.worker.engines.engine import Engine
from tasks.worker.engines.failures import Failures
from tasks.worker.engines.peers import Nobody
from tasks.worker.engines.turns import Asked, Cold, Turns
from worker_config.catalogue import ModelNotAllowed, current_catalogue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tasks.messages.engine import StepOutput
    from tasks.models.footprint import Footprint, Source
    from tasks.worker.attempts.job import Job
    from tasks.worker.attempts.publisher import Publisher
    from tasks.worker.engines.backlog import Backlog, Waiting
    from tasks.worker.engines.peers import Others
    from worker_config.catalogue import ModelEntry
    from worker_config.settings import Settings

logger = logging.getLogger(__name__)

WAIT_S = 0.5
#: What happens within so short a time is looked at once.
TICK_S = 0.02
#: A request waits so long, in its slot, for what is to be a matter of a moment.
HOLD_S = 5.0
#: A worker sets aside at most so many requests a second, or it would spend its time on a long queue that it cannot serve.
ASIDE_PER_S = 20.0
#: A part of the budget that cached prompts may take in each engine.
PROMPT_CACHE_SHARE = 0.1


class Interrupted(Exception):
    """The job was stopped while it waited for its engine."""


class SetAside(Exception):
    """This worker does not run the request now: it is to be set aside for its model, ``model``."""

    def __init__(self, model: str) -> None:
        super().__init__(f"set aside for {model}")
        self.model = model


class TooLarge(Exception):
    """The model does not fit into this worker, whatever else would end: ``most_bytes`` is what the largest may need."""

    def __init__(self, most_bytes: int) -> None:
        super().__init__(f"at most {most_bytes} bytes")
        self.most_bytes = most_bytes


@dataclass(slots=True, eq=False)
class Visit:
    """One request that waits for its engine: what it waits for, and whether it began that itself."""

    entry: ModelEntry
    queue: str
    since: float
    engine: Engine | None = None
    download: Download | None = None
    began: bool = False
    soon: bool = False
    floor_bytes: int = 0


class Engines:
    """All engines of this worker, under one budget of bytes.

    Args:
        settings: the time-outs, the batch and cache sizes.
        budget_bytes: what all engines may take together.
        accelerator: ``metal``, ``cuda`` or ``cpu``.
        slots: the largest batch that a request can find itself in.
        publisher: where entries go.
        on_step: called with each step of each engine.
        on_change: called when an engine came, went or failed.
        on_asked: called when :meth:`asked` has another answer; on any thread.
        others: the fleet's other workers.
        failures: what is known against models; nothing, if ``None``.
    """

    def __init__(
        self,
        settings: Settings,
        budget_bytes: int,
        accelerator: str,
        slots: int,
        publisher: Publisher,
        on_step: Callable[[Engine, StepOutput], None],
        on_change: Callable[[], None] = lambda: None,
        on_asked: Callable[[], None] = lambda: None,
        others: Others | None = None,
        failures: Failures | None = None,
    ) -> None:
        self._settings = settings
        self._budget = Budget(budget_bytes)
        self._accelerator = accelerator
        self._slots = slots
        self._publisher = publisher
        self._on_step = on_step
        self._announce = on_change
        self._on_asked = on_asked
        self._others = others or Nobody()
        #: Where requests go that are set aside; without one they wait in their slots.
        self.backlog: Backlog | None = None
        #: Engines that died or stalled, so far.
        self.restarts = 0
        #: Engines that were started, so far.
        self.loads = 0
        self._engines: dict[str, Engine] = {}
        self._leaving: list[Engine] = []
        self._downloads: dict[str, Download] = {}
        self._sources: dict[str, Source] = {}
        self._footprints: dict[str, Footprint] = {}
        self._failures = failures or Failures()
        self._turns = Turns(self._budget, settings.fair_wait_s)
        self._kept: dict[str, ModelEntry] = {}
        self._loaders: dict[str, threading.Thread] = {}
        self._visits: list[Visit] = []
        self._aside_at = 0.0
        self._asked: dict[str, Asked] = {}
        self._changed = threading.Condition(threading.RLock())
        self._changes = 0
        self._closing = threading.Event()
        self._watch = threading.Thread(target=self._watch_engines, name="engines", daemon=True)
        self._watch.start()

    def acquire(self, entry: ModelEntry, job: Job | None = None) -> Engine:
        """The engine of this model, loaded; starts it if need be. Give it back with :meth:`release`.

        Raises:
            GenerationError: it cannot be loaded: now, or ever, here or anywhere.
            Interrupted: the job was stopped meanwhile.
            SetAside: another worker may run it, or this one later.
        """
        visit = Visit(entry, job.queue if job is not None else "", time.monotonic())
        try:
            with self._changed:
                return self._wait_for_engine(visit, job)
        except TooLarge as error:
            raise self._too_large(visit, error.most_bytes) from None
        except GenerationError:
            if self._may_set_aside(visit) and self._somebody_has(visit):
                raise self._set_aside(visit) from None
            raise

    def release(self, engine: Engine, keep_alive_s: float | None = None) -> None:
        """A request is done with this engine, which may now idle for so long; ``None`` for as long as usual."""
        with self._changed:
            engine.place.users -= 1
            engine.place.used_at = time.monotonic()
            engine.keep_alive_s = keep_alive_s
            self._wake()

    def load(self, entry: ModelEntry, *, pin: bool = False) -> None:
        """Begin to load a model; a pinned one stays, and is loaded again should its engine die.

        Raises:
            GenerationError: it can never be loaded here.
        """
        with self._changed:
            engine = self._engines.get(entry.name)
            decision = self._decide(entry)
            if engine is None and isinstance(decision, Never):
                raise OutOfMemory(self._why_too_large(entry, decision.most_bytes))
            if pin:
                self.keep(entry)
            self._load_alone(entry)
        self._announce()

    def keep(self, entry: ModelEntry) -> None:
        """Load a model, and load it again whenever it is gone; its engine never gives way."""
        with self._changed:
            self._kept[entry.name] = entry
            engine = self._engines.get(entry.name)
            if engine is not None:
                engine.place.pinned = True
            self._load_alone(entry)

    def unload(self, name: str) -> bool:
        """End the engine of a model, once its requests are done; ``False`` if there is none. A pinned one is pinned no more."""
        with self._changed:
            self._kept.pop(name, None)
            engine = self._engines.get(name)
            if engine is not None:
                self._end(engine, "because somebody asked for it")
        return engine is not None

    def asked(self, queue: str) -> Asked:
        """The models for which requests of this queue that were set aside are taken now. Never waits."""
        return self._asked.get(queue) or Asked([], [])

    def look_again(self) -> None:
        """Something has changed that may matter here."""
        with self._changed:
            self._wake()

    def _wake(self) -> None:
        self._changes += 1
        self._changed.notify_all()

    def states(self) -> list[EngineState]:
        """All engines, as the registry shows them, the models on their way, and those that failed."""
        with self._changed:
            leaving = [engine for engine in self._leaving if engine.failure is None]
            states = [engine.state() for engine in (*self._engines.values(), *leaving)]
            states += [
                EngineState(model=name, state="downloading", fraction=each.fraction, pid=each.pid, reason=each.about)
                for name, each in self._downloads.items()
            ]
            known = {state.model for state in states if state.state != "ending"}
            states += [state for state in self._failures.states() if state.model not in known]
        return states

    def state_of(self, name: str) -> str:
        """What one model is doing: ``ready``, ``loading``, ``downloading``, ``failed``, or ``waiting`` for room."""
        return next((each.state for each in self.states() if each.model == name and each.state != "ending"), "waiting")

    def degraded(self) -> str:
        """Why this worker cannot serve what it should; empty if it can."""
        with self._changed:
            return self._failures.degraded()

    @property
    def loading(self) -> bool:
        """Whether a model is being loaded."""
        with self._changed:
            return bool(self._loaders) or any(each.place.state == "loading" for each in self._engines.values())

    @property
    def room_bytes(self) -> int:
        """What the largest model that could be loaded may need."""
        with self._changed:
            return max(0, self._budget.most_bytes)

    def pids(self) -> list[int]:
        """The processes, for usage."""
        with self._changed:
            return [engine.process.pid for engine in (*self._engines.values(), *self._leaving)]

    def last_steps(self) -> list[StepOutput]:
        """The last step of each engine, for MLX's own figures."""
        with self._changed:
            return [engine.last for engine in self._engines.values() if engine.last is not None]

    def close(self) -> None:
        """End all engines and downloads."""
        self._closing.set()
        with self._changed:
            self._kept.clear()
            engines = [*self._engines.values(), *self._leaving]
            downloads = list(self._downloads.values())
            self._engines.clear()
            self._wake()
        for download in downloads:
            download.stop()
        threads = [threading.Thread(target=engine.close, daemon=True) for engine in engines]
        for thread in threads:
            thread.start()
        for thread in (*threads, self._watch):
            thread.join()

    # A request's way to its engine.

    def _wait_for_engine(self, visit: Visit, job: Job | None) -> Engine:
        self._visits.append(visit)
        try:
            while True:
                if (job is not None and job.reason is not None) or self._closing.is_set():
                    raise Interrupted(job.reason if job is not None else "closing")
                # Copies: each raise of one object would add to its traceback, which is stored with every result.
                if visit.engine is not None and visit.engine.failure is not None:
                    raise copy(visit.engine.failure)
                if visit.download is not None and visit.download.error is not None:
                    error = self._failures.error_of(visit.entry.name) if visit.download.killed else visit.download.error
                    if error is not None:
                        raise copy(error)
                    visit.download = None
                if visit.entry.name not in self._engines:
                    self._bring(visit)
                visit.engine = engine = self._engines.get(visit.entry.name)
                if engine is not None and engine.serves:
                    engine.place.users += 1
                    return engine
                self._changed.wait(self._stay(visit))
        finally:
            self._visits.remove(visit)

    def _bring(self, visit: Visit) -> None:
        """Do what can be done now to have the model loaded: fetch it, make room, start its engine."""
        entry = visit.entry
        error = self._failures.error_of(entry.name)
        if error is not None:
            raise copy(error)
        source = self._source(entry)
        decision = self._decide(entry)
        visit.floor_bytes = self._footprint(entry).floor_bytes
        if isinstance(decision, Never):
            raise TooLarge(decision.most_bytes)
        if self._failures.pause_s(entry.name) > 0:
            decision = Later(soon=True)
        elif source is None:
            visit.began |= entry.name not in self._downloads
            visit.download = self._fetch(entry)
        elif not self._turns.allow(entry.name):
            decision = Later(soon=False)
        elif isinstance(decision, Start):
            visit.began = True
            self._start(entry, source)
        elif isinstance(decision, Clear):
            for place in decision.end:
                self._end(self._engine_at(place), f"to make room for {entry.name}")
            for place, size_bytes in decision.shrink:
                self._tell(place, size_bytes)
        visit.soon = isinstance(decision, Clear) or (isinstance(decision, Later) and decision.soon)

    def _stay(self, visit: Visit) -> float:
        """How long this request waits in its slot before it looks again.

        Raises:
            SetAside: it does not wait here.
        """
        if not self._may_set_aside(visit) or self._has_reason_to_stay(visit):
            return WAIT_S
        left_s = self._aside_at - time.monotonic()
        if left_s > 0:
            return min(WAIT_S, left_s)
        self._aside_at = time.monotonic() + 1 / ASIDE_PER_S
        raise self._set_aside(visit)

    def _has_reason_to_stay(self, visit: Visit) -> bool:
        """Whether its model comes by itself, and enough slots are left for others meanwhile."""
        engine = visit.engine
        if engine is None and visit.entry.name not in self._downloads:
            return visit.soon and time.monotonic() - visit.since < HOLD_S
        if engine is not None and engine.place.retiring:
            return False
        of_queue = [each for each in self._visits if each.queue == visit.queue]
        return visit.began or of_queue.index(visit) < max(1, self._slots // 2)

    def _may_set_aside(self, visit: Visit) -> bool:
        return self.backlog is not None and bool(visit.queue)

    def _somebody_has(self, visit: Visit) -> bool:
        self._others.look()
        return self._others.hold(visit.queue, visit.entry.name)

    def _set_aside(self, visit: Visit) -> SetAside:
        assert self.backlog is not None
        self.backlog.note(visit.queue, visit.entry.name)
        return SetAside(visit.entry.name)

    def _too_large(self, visit: Visit, most_bytes: int) -> Exception:
        """What becomes of a request whose model can never be loaded here: another's work, or an error with the numbers."""
        if self._may_set_aside(visit):
            self._others.look()
            if self._others.could_load(visit.queue, visit.entry):
                return self._set_aside(visit)
        return OutOfMemory(self._why_too_large(visit.entry, most_bytes, visit.queue))

    def _why_too_large(self, entry: ModelEntry, most_bytes: int, queue: str = "") -> str:
        total, needed = self._budget.total_bytes, self._footprint(entry).floor_bytes
        pinned = f", of which pinned models leave {_gb(most_bytes)}" if most_bytes < total else ""
        others = self._others.sizes(queue)
        return (
            f"model {entry.name!r} needs {_gb(needed)} and this worker may use {_gb(total)}{pinned}"
            f"{f'; the others that serve {queue}: {others}' if others else ''}: send it to a larger machine, or take a "
            "smaller or more strongly quantised model"
        )

    # Bringing engines up and down. All of it with the lock held.

    def _decide(self, entry: ModelEntry) -> Start | Clear | Later | Never:
        return self._budget.decide(self._footprint(entry).floor_bytes, time.monotonic())

    def _footprint(self, entry: ModelEntry) -> Footprint:
        """What a model needs: what it needed the last time, else what its files or its name say."""
        if entry.name not in self._footprints:
            self._footprints[entry.name] = expected(entry, self._accelerator, self._budget.total_bytes)
        return self._footprints[entry.name]

    def _source(self, entry: ModelEntry) -> Source | None:
        return self._sources.get(entry.name) or local_source(entry)

    def _fetch(self, entry: ModelEntry) -> Download:
        """The download of a model, begun if it has not."""
        if entry.name not in self._downloads:
            try:
                self._downloads[entry.name] = Download(entry, self._settings, self._on_download)
            except OSError as error:
                raise ModelLoadFailed(
                    f"model {entry.name!r}: no process could be started to fetch it: {error}"
                ) from error
            self._announce()
        return self._downloads[entry.name]

    def _start(self, entry: ModelEntry, source: Source) -> None:
        footprint = self._footprint(entry)
        size_bytes = footprint.floor_bytes
        place = Place(entry.name, size_bytes, size_bytes, time.monotonic(), sizable=size_bytes > 0)
        place.pinned = entry.name in self._kept
        config = EngineConfig(
            model=entry.name,
            source=source.path,
            revision=source.revision,
            max_batch=self._settings.max_batch or self._slots,
            prefill_step_tokens=self._settings.prefill_step_tokens,
            prompt_cache_bytes=self._settings.prompt_cache_bytes or int(self._budget.total_bytes * PROMPT_CACHE_SHARE),
            memory_budget_bytes=size_bytes - footprint.process_bytes if place.sizable else None,
            context_tokens=entry.context_tokens,
            trust_remote_code=entry.trust_remote_code,
        )
        logger.info("loading model %s, %s reserved", entry.name, _gb(size_bytes))
        try:
            engine = Engine(entry, config, place, footprint, self._publisher, self._on_engine_change, self._on_step)
        except OSError as error:
            raise ModelLoadFailed(f"model {entry.name!r}: no process could be started for it: {error}") from error
        self._budget.places.append(place)
        self._engines[entry.name] = engine
        self.loads += 1
        self._announce()

    def _end(self, engine: Engine, why: str) -> None:
        """Take no more requests for this engine, and end it when those that it has are done."""
        logger.info("ending the engine of %s %s", engine.entry.name, why)
        self._remove(engine)
        threading.Thread(
            target=self._finish, args=(engine,), name=f"engine-end-{engine.process.pid}", daemon=True
        ).start()
        self._announce()

    def _remove(self, engine: Engine) -> None:
        place = engine.place
        if place.users and place.held_bytes > place.floor_bytes and place.asked_bytes is None:
            self._tell(place, place.floor_bytes)  # others need not wait for more than its last requests need
        del self._engines[engine.entry.name]
        place.state = "ending"
        self._leaving.append(engine)

    def _finish(self, engine: Engine) -> None:
        """Wait for an engine's requests and for the end of its process; only then are its bytes free."""
        with self._changed:
            while engine.place.users and not engine.gone and not self._closing.is_set():
                self._changed.wait(WAIT_S)
        engine.close()
        with self._changed:
            self._leaving.remove(engine)
            self._budget.places.remove(engine.place)
            self._share(self._cold())
            self._wake()
        self._announce()

    def _tell(self, place: Place, size_bytes: int) -> None:
        self._budget.ask(place, size_bytes, time.monotonic())
        self._engine_at(place).resize(size_bytes)

    def _share(self, cold: Iterable[Cold]) -> None:
        """Divide what is left over among the loaded engines, but for what is about to be needed."""
        if self._closing.is_set():
            return
        coming = {each.entry.name: each.floor_bytes for each in self._visits if each.entry.name not in self._engines}
        for each in cold:
            if not each.elsewhere:
                coming.setdefault(each.waiting.model, each.floor_bytes)
        for place, size_bytes in self._budget.shares(coming.values()):
            self._tell(place, size_bytes)

    def _engine_at(self, place: Place) -> Engine:
        return next(engine for engine in self._engines.values() if engine.place is place)

    def _load_alone(self, entry: ModelEntry) -> None:
        """Load a model that no request waits for, on a thread of its own."""
        if entry.name in self._engines or entry.name in self._loaders:
            return

        def load() -> None:
            error: GenerationError | None = None
            try:
                self.release(self.acquire(entry))
            except GenerationError as caught:
                error = caught
            except Interrupted:
                logger.debug("model %s is not loaded any more: the worker ends", entry.name)
            finally:
                with self._changed:
                    del self._loaders[entry.name]
                    if error is not None and self._failures.error_of(entry.name) is None:
                        self._fail(entry, error)

        thread = self._loaders[entry.name] = threading.Thread(target=load, name=f"load-{entry.name}", daemon=True)
        thread.start()

    # What engines and downloads say, on threads of theirs.

    def _on_engine_change(self, engine: Engine) -> None:
        with self._changed:
            current = self._engines.get(engine.entry.name) is engine
            if current and engine.gone:
                self.restarts += 1
            if current and engine.crash is not None and engine.failure is None:
                engine.failure = self._failures.crashed(engine.entry.name, str(engine.crash))
            if current and engine.failure is not None:
                self._fail(engine.entry, engine.failure)
                self._end(engine, "because it failed to load")
            elif current and engine.gone:
                self._end(engine, "because its process is gone")
            elif engine.ready is not None and engine.place.state == "loading":
                self._loaded(engine)
            if engine.size_bytes is not None:
                self._budget.settle(engine.place, engine.size_bytes)
            self._share(self._cold())
            self._wake()
        self._announce()

    def _loaded(self, engine: Engine) -> None:
        """An engine is ready: what it really needs takes the place of what was expected."""
        name, place, ready = engine.entry.name, engine.place, engine.ready
        assert ready is not None
        if place.sizable:
            engine.footprint = self._footprints[name] = measured(ready, engine.footprint)
            if ready.weights_bytes > place.held_bytes - engine.footprint.process_bytes:
                needed = engine.footprint.floor_bytes
                engine.give_up(
                    OutOfMemory(
                        f"model {name!r} takes {_gb(needed)} now that it is loaded, where its files promised "
                        f"{_gb(place.held_bytes)}: try again, with more room it is given what it needs"
                    )
                )
                return
            place.floor_bytes = min(place.held_bytes, engine.footprint.floor_bytes)
        place.state = "ready"
        place.since = place.used_at = time.monotonic()
        self._failures.forget(name)
        logger.info(
            "model %s is loaded: %.1f s, %s of weights, %s",
            *(name, ready.load_s, _gb(ready.weights_bytes), ready.accelerator),
        )

    def _on_download(self, download: Download) -> None:
        entry = download.entry
        with self._changed:
            if download.done and self._downloads.get(entry.name) is download:
                del self._downloads[entry.name]
                self._footprints.pop(entry.name, None)  # its headers can be read now
                if download.source is not None:
                    self._sources[entry.name] = download.source
                elif not self._closing.is_set():
                    error: GenerationError | None = download.error
                    if download.killed:
                        error = self._failures.crashed(entry.name, str(error))
                    if error is not None:
                        self._fail(entry, error)
            self._wake()
        if download.done:
            self._announce()

    def _fail(self, entry: ModelEntry, error: GenerationError) -> None:
        self._failures.note(entry.name, error)
        self._sources.pop(entry.name, None)

    # The watch.

    def _watch_engines(self) -> None:
        """End engines that stall and those that idle for too long, give waiting models their turn, and say who is asked for."""
        seen = -1
        while not self._closing.wait(TICK_S):
            with self._changed:
                if self._changes == seen:
                    self._changed.wait(WAIT_S)
                seen = self._changes
            try:
                self._look_after_engines(time.monotonic())
            except Exception:
                # A thread that ends looks after nothing any more.
                logger.exception("a look at the engines failed")

    def _look_after_engines(self, now: float) -> None:
        with self._changed:
            for engine in list(self._engines.values()):
                if self._idles_too_long(engine, now):
                    self._end(engine, f"after {now - engine.place.used_at:.0f} s without a request")
            for entry in self._kept.values():
                if self._failures.error_of(entry.name) is None:
                    self._load_alone(entry)
            cold = self._cold()
            self._turns.give(cold, now)
            self._share(cold)
            asked = self._turns.asked(cold, self._warm(), now, self._failing())
            engines = list(self._engines.values())
        for engine in engines:
            self._end_if_stuck(engine)
        if asked != self._asked:
            self._asked = asked
            self._on_asked()

    def _idles_too_long(self, engine: Engine, now: float) -> bool:
        keep_s = engine.keep_alive_s
        if keep_s is None:
            keep_s = engine.entry.keep_alive_s
        if keep_s is None:
            keep_s = self._settings.keep_alive_s
        return keep_s > 0 and engine.place.idle and now - engine.place.used_at > keep_s

    def _end_if_stuck(self, engine: Engine) -> None:
        stall_s, load_s = self._settings.stall_timeout_s, self._settings.load_timeout_s
        if engine.stalled(stall_s):
            logger.error(
                "engine %s of %s made no step for %.0f s although it has work; it is replaced",
                *(engine.process.pid, engine.entry.name, stall_s),
            )
            engine.process.kill()
        elif engine.place.state == "loading" and time.monotonic() - engine.place.since > load_s:
            engine.give_up(ModelLoadFailed(f"model {engine.entry.name!r} was not loaded within {load_s:g} s"))

    def _waiting(self) -> list[Waiting]:
        return self.backlog.waiting() if self.backlog is not None else []

    def _cold(self) -> list[Cold]:
        """The models that wait, that are neither here nor on their way, and that nothing is known against."""
        cold = []
        for each in self._waiting():
            name = each.model
            if name in self._engines or name in self._downloads or self._failures.error_of(name) is not None:
                continue
            try:
                footprint = self._footprint(current_catalogue().resolve(name))
            except (ModelNotAllowed, GenerationError):
                continue  # others may know it
            cold.append(Cold(each, footprint.floor_bytes, self._others.hold(each.queue, name)))
        return cold

    def _warm(self) -> list[tuple[str, str]]:
        """The loaded models, by the queue that their requests come from, and by those that some have come from."""
        loaded = [name for name, engine in self._engines.items() if engine.serves]
        return [
            *((_queue_of(name), name) for name in loaded),
            *((each.queue, each.model) for each in self._waiting() if each.model in loaded),
        ]

    def _failing(self) -> list[tuple[str, str]]:
        """The models that failed just now and that nobody else has: their requests are to fail, too."""
        return [
            (each.queue, each.model)
            for each in self._waiting()
            if self._failures.error_of(each.model) is not None and not self._others.hold(each.queue, each.model)
        ]


@lru_cache(maxsize=1024)
def _queue_of(model: str) -> str:
    try:
        return queue_for_model(model)
    except GenerationError:
        return ""


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.2f} GB"

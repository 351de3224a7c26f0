"""The engines of one worker: loaded on first request, watched, replaced when they die, ended when they idle."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.errors import GenerationError, ModelLoadFailed, OutOfMemory, error_for
from tasks.messages.engine import Abort, EngineConfig, LoadFailed, Loading, Ready, Started, StepOutput, Submit
from tasks.messages.registry import EngineState
from tasks.worker.engine_process import EngineGone, EngineProcess
from tasks.worker.sizes import expected, local_source

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.messages.journal import Entry
    from tasks.worker.flight import Flight
    from tasks.worker.job import Job, StopReason
    from tasks.worker.publisher import Publisher
    from worker_config.catalogue import ModelEntry
    from worker_config.settings import Settings

logger = logging.getLogger(__name__)

WAIT_S = 0.5
RETRY_FIRST_S = 2.0
RETRY_MOST_S = 300.0
#: Failed starts in a row after which a worker calls itself degraded for a model.
DEGRADED_AFTER = 3
#: A part of the budget that an engine may use beyond its weights, for KV and prompt caches.
CACHE_SHARE = 0.25
ABORT_REASON = {
    "cancelled": "cancelled",
    "soft_time_limit": "deadline",
    "time_limit": "deadline",
    "requeue": "cancelled",
}


class Interrupted(Exception):
    """The job was stopped while it waited for its engine."""


@dataclass(slots=True)
class Failures:
    """How often in a row a model failed to load, why, and when it may be tried again (monotonic seconds)."""

    count: int
    error: GenerationError
    retry_at: float


class Engine:
    """One engine process and the flights in it.

    Args:
        entry: the model.
        config: what the process is told.
        reserved_bytes: its share of the worker's budget.
        publisher: where the flights' entries go.
        on_change: called when it is ready, failed or gone.
        on_step: called with each step, on the reader's thread.
    """

    def __init__(
        self,
        entry: ModelEntry,
        config: EngineConfig,
        reserved_bytes: int,
        publisher: Publisher,
        on_change: Callable[[Engine], None],
        on_step: Callable[[Engine, StepOutput], None],
    ) -> None:
        self.entry = entry
        self.reserved_bytes = reserved_bytes
        self.pinned = False
        self.users = 0
        self.ready: Ready | None = None
        self.failure: GenerationError | None = None
        self.gone = False
        self.last: StepOutput | None = None
        self.progress_at = self.used_at = time.monotonic()
        self.loading: Loading | None = None
        self._publisher = publisher
        self._on_change = on_change
        self._on_step = on_step
        self._flights: dict[str, Flight] = {}
        self._started: set[str] = set()
        self._lock = threading.Lock()
        self._closing = False
        self.process = EngineProcess.start(config)
        self._reader = threading.Thread(target=self._read, name=f"engine-{self.process.pid}", daemon=True)
        self._reader.start()

    def submit(self, flight: Flight, submit: Submit) -> None:
        """Hand a request to the process; its flight lands when it ends, however it ends."""
        with self._lock:
            if not self._flights:
                self.progress_at = time.monotonic()
            if not self.gone:
                self._flights[flight.task_id] = flight
        if self.gone:
            self._publisher.put([(flight, flight.release(crashed=False))])
            return
        try:
            self.process.send(submit)
        except EngineGone:
            logger.debug("engine %s ended before it took request %s", self.process.pid, flight.task_id)

    def stop(self, flight: Flight, reason: StopReason, limit_s: float | None = None) -> None:
        """Have a flight end within one step, for this reason."""
        flight.stop_reason = reason
        flight.limit_s = limit_s
        try:
            self.process.send(Abort(flight.task_id, ABORT_REASON[reason]))  # type: ignore[arg-type]
        except EngineGone:
            logger.debug("engine %s ended before request %s was aborted", self.process.pid, flight.task_id)

    @property
    def busy(self) -> bool:
        """Whether requests are in it, or about to be."""
        return bool(self._flights) or self.users > 0

    def stalled(self, timeout_s: float) -> bool:
        """Whether it has had work, and made no step, for so long."""
        with self._lock:
            return bool(self._flights) and time.monotonic() - self.progress_at > timeout_s

    def close(self) -> None:
        """End the process; for an engine without work."""
        self._closing = True
        self.process.close()

    def state(self) -> EngineState:
        """What the registry says of it."""
        last, now = self.last, time.monotonic()
        return EngineState(
            model=self.entry.name,
            state="failed" if self.failure else "ready" if self.ready else "loading",
            pid=self.process.pid,
            revision=self.ready.revision if self.ready else None,
            pinned=self.pinned,
            memory_bytes=last.active_bytes if last else self.ready.weights_bytes if self.ready else None,
            kv_cache_ratio=self._kv_cache_ratio(),
            running=last.running if last else 0,
            waiting=last.waiting if last else 0,
            steps=last.step if last else 0,
            idle_s=None if self.busy else round(now - self.used_at, 1),
            reason=str(self.failure or ""),
        )

    def _kv_cache_ratio(self) -> float | None:
        """See :class:`tasks.messages.registry.EngineState`; ``None`` where MLX says nothing of memory."""
        if self.ready is None or self.last is None or self.last.active_bytes is None:
            return None
        room = self.reserved_bytes - self.ready.weights_bytes
        used = self.last.active_bytes - self.ready.weights_bytes
        return round(min(max(used / room, 0.0), 1.0), 4) if room > 0 else None

    def _read(self) -> None:
        while True:
            try:
                message = self.process.receive()
            except EngineGone as error:
                self._lost(error)
                return
            if isinstance(message, StepOutput):
                self._take(message)
            elif isinstance(message, Ready):
                self.ready = message
                self._on_change(self)
            elif isinstance(message, LoadFailed):
                self.failure = error_for(message.code)(message.message)
                self._on_change(self)
            else:
                self.loading = message

    def _take(self, output: StepOutput) -> None:
        self.last = output
        self.progress_at = time.monotonic()
        entries: list[tuple[Flight, Entry]] = []
        with self._lock:
            for event in output.events:
                flight = self._flights.get(event.task_id)
                if flight is None:
                    continue
                entry = flight.take(event)
                entries.append((flight, entry))
                if isinstance(event, Started):
                    self._started.add(event.task_id)
                if entry.type in ("end", "error", "release"):
                    del self._flights[event.task_id]
                    self._started.discard(event.task_id)
        if entries:
            self._publisher.put(entries)
        self._on_step(self, output)

    def _lost(self, error: EngineGone) -> None:
        """The process has ended: its flights go back, those of its batch with a crash to their account."""
        with self._lock:
            self.gone = True
            flights, self._flights = self._flights, {}
            started, self._started = self._started, set()
        if not self._closing:
            logger.error("%s; %d requests were in it", error, len(flights))
        if self.ready is None and self.failure is None:
            self.failure = ModelLoadFailed(f"model {self.entry.name!r} cannot be loaded: {error}")
        self._publisher.put(
            [(flight, _after_crash(flight, in_batch=task_id in started)) for task_id, flight in flights.items()]
        )
        self._on_change(self)


def _after_crash(flight: Flight, *, in_batch: bool) -> Entry:
    """What becomes of a flight whose engine died: what it was to stop for still stands."""
    if flight.stop_reason == "cancelled":
        return flight.end("cancelled")
    if flight.stop_reason == "soft_time_limit":
        return flight.end("deadline")
    if flight.stop_reason == "time_limit":
        return flight.error("deadline_exceeded", f"the time limit of {flight.limit_s:g} s passed")
    return flight.release(crashed=in_batch)


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
    ) -> None:
        self._settings = settings
        self._budget_bytes = budget_bytes
        self._accelerator = accelerator
        self._slots = slots
        self._publisher = publisher
        self._on_step = on_step
        self._announce = on_change
        self._engines: dict[str, Engine] = {}
        self._failures: dict[str, Failures] = {}
        #: Engines that died or stalled, so far.
        self.restarts = 0
        self._changed = threading.Condition(threading.RLock())
        self._closing = threading.Event()
        self._watch = threading.Thread(target=self._watch_engines, name="engines", daemon=True)
        self._watch.start()

    def acquire(self, entry: ModelEntry, job: Job | None = None) -> Engine:
        """The engine of this model, loaded; starts it if need be. Give it back with :meth:`release`.

        Raises:
            GenerationError: it cannot be loaded: now, or ever, here.
            Interrupted: the job was stopped meanwhile.
        """
        with self._changed:
            while True:
                if job is not None and job.reason is not None:
                    raise Interrupted(job.reason)
                engine = self._engines.get(entry.name)
                if engine is None or engine.gone:
                    engine = self._try_to_start(entry)
                if engine is not None and engine.failure is not None:
                    raise engine.failure
                if engine is not None and engine.ready is not None:
                    engine.users += 1
                    return engine
                self._changed.wait(WAIT_S)

    def release(self, engine: Engine) -> None:
        """A request is done with this engine."""
        with self._changed:
            engine.users -= 1
            engine.used_at = time.monotonic()
            self._changed.notify_all()

    def preload(self, entry: ModelEntry) -> None:
        """Start loading a model that is to stay."""
        with self._changed:
            engine = self._engines.get(entry.name) or self._try_to_start(entry)
            if engine is not None:
                engine.pinned = True

    def states(self) -> list[EngineState]:
        """All engines, as the registry shows them, and the models that failed."""
        with self._changed:
            states = [engine.state() for engine in self._engines.values()]
            failed = [
                EngineState(model=name, state="failed", reason=str(each.error))
                for name, each in self._failures.items()
                if name not in self._engines
            ]
        return states + failed

    def degraded(self) -> str:
        """Why this worker cannot serve what it should; empty if it can."""
        with self._changed:
            return "; ".join(
                f"{name}: failed to load {each.count} times, {each.error}"
                for name, each in self._failures.items()
                if each.count >= DEGRADED_AFTER
            )

    @property
    def loading(self) -> bool:
        """Whether a model is being loaded."""
        with self._changed:
            return any(not each.ready and not each.failure and not each.gone for each in self._engines.values())

    def pids(self) -> list[int]:
        """The processes, for usage."""
        with self._changed:
            return [engine.process.pid for engine in self._engines.values()]

    def last_steps(self) -> list[StepOutput]:
        """The last step of each engine, for MLX's own figures."""
        with self._changed:
            return [engine.last for engine in self._engines.values() if engine.last is not None]

    def close(self) -> None:
        """End all engines."""
        self._closing.set()
        with self._changed:
            engines = list(self._engines.values())
            self._engines.clear()
        for engine in engines:
            engine.close()

    def _try_to_start(self, entry: ModelEntry) -> Engine | None:
        """Start the engine if there is room for it; ``None`` if others have to end first."""
        failed = self._failures.get(entry.name)
        if failed is not None and time.monotonic() < failed.retry_at:
            raise failed.error
        found = local_source(entry)
        source = found.path if found is not None else entry.source
        needed = expected(entry, self._accelerator, self._budget_bytes).floor_bytes
        if needed > self._budget_bytes:
            raise OutOfMemory(
                f"model {entry.name!r} needs about {needed / 1e9:.1f} GB and this worker may use "
                f"{self._budget_bytes / 1e9:.1f} GB: send it to a larger machine"
            )
        if not self._make_room(needed):
            return None
        reserved = min(needed + int(self._budget_bytes * CACHE_SHARE), self._free_bytes())
        config = EngineConfig(
            model=entry.name,
            source=source,
            revision=entry.revision,
            max_batch=self._settings.max_batch or self._slots,
            prefill_step_tokens=self._settings.prefill_step_tokens,
            prompt_cache_bytes=self._settings.prompt_cache_bytes or reserved // 10,
            memory_budget_bytes=None if entry.kind == "fake" else reserved,
            context_tokens=entry.context_tokens,
            trust_remote_code=entry.trust_remote_code,
        )
        logger.info("loading model %s", entry.name)
        engine = Engine(entry, config, reserved, self._publisher, self._on_engine_change, self._on_step)
        engine.pinned = entry.name in self._settings.models
        self._engines[entry.name] = engine
        self._announce()
        return engine

    def _free_bytes(self) -> int:
        return self._budget_bytes - sum(each.reserved_bytes for each in self._engines.values())

    def _make_room(self, needed: int) -> bool:
        """End idle engines, the longest unused first, until so many bytes are free; none with work, none that is pinned."""
        idle = [each for each in self._engines.values() if not each.busy and not each.pinned and each.ready]
        for engine in sorted(idle, key=lambda each: each.used_at):
            if self._free_bytes() >= needed:
                break
            self._end(engine, "to make room")
        return self._free_bytes() >= needed

    def _end(self, engine: Engine, why: str) -> None:
        logger.info("ending the engine of %s %s", engine.entry.name, why)
        del self._engines[engine.entry.name]
        engine.close()
        self._announce()

    def _on_engine_change(self, engine: Engine) -> None:
        with self._changed:
            name = engine.entry.name
            if engine.gone and self._engines.get(name) is engine:
                self.restarts += 1
            if engine.failure is not None and self._engines.get(name) is engine:
                earlier = self._failures.get(name)
                count = earlier.count + 1 if earlier else 1
                pause_s = min(RETRY_FIRST_S * 2 ** (count - 1), RETRY_MOST_S)
                self._failures[name] = Failures(count, engine.failure, time.monotonic() + pause_s)
                logger.error("model %s: %s; it is tried again in %.0f s", name, engine.failure, pause_s)
                del self._engines[name]
                threading.Thread(target=engine.close, name=f"engine-end-{engine.process.pid}", daemon=True).start()
            elif engine.gone and self._engines.get(name) is engine:
                del self._engines[name]
            elif engine.ready is not None and not engine.gone:
                self._failures.pop(name, None)
                logger.info(
                    "model %s is loaded: %.1f s, %.2f GB, %s",
                    *(name, engine.ready.load_s, engine.ready.weights_bytes / 1e9, engine.ready.accelerator),
                )
            self._changed.notify_all()
        self._announce()

    def _watch_engines(self) -> None:
        """End engines that stall, and those that idle for longer than their model is kept alive."""
        while not self._closing.wait(WAIT_S):
            with self._changed:
                engines = list(self._engines.values())
                for engine in engines:
                    if self._idles_too_long(engine):
                        self._end(engine, f"after {time.monotonic() - engine.used_at:.0f} s without a request")
            for engine in engines:
                if engine.stalled(self._settings.stall_timeout_s):
                    logger.error(
                        "engine %s of %s made no step for %.0f s although it has work; it is replaced",
                        *(engine.process.pid, engine.entry.name, self._settings.stall_timeout_s),
                    )
                    engine.process.kill()

    def _idles_too_long(self, engine: Engine) -> bool:
        keep_s = engine.entry.keep_alive_s
        keep_s = self._settings.keep_alive_s if keep_s is None else keep_s
        idle = not engine.busy and not engine.pinned and engine.ready is not None
        return idle and keep_s > 0 and time.monotonic() - engine.used_at > keep_s

"""The keeper: the thread that writes a worker's heartbeats, holds its connection, and looks for cancel marks."""

from __future__ import annotations

import logging
import os
import random
import selectors
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from tasks.errors import GenerationError
from tasks.metrics.distributions import percentile
from tasks.names import COMMAND
from tasks.registry import DuplicateWorker
from tasks.registry.lifeline import Lifeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tasks.messages.registry import WorkerRecord
    from tasks.registry import Beat, Registry

    Lost: TypeAlias = Literal["swept", "superseded"]

logger = logging.getLogger(__name__)

#: Waits between attempts while Redis is away: doubled from the first to the last, each with jitter.
RETRY_FIRST_S = 0.1
RETRY_LAST_S = 1.5
WARN_EVERY_S = 600.0
COSTS = 1024


class CancelMarks(Protocol):
    """Says which requests carry a cancel mark, as :class:`tasks.journal.writer.Journal` does."""

    def cancelled(self, task_ids: Iterable[str]) -> set[str]:
        """Those of the requests that carry the mark."""


class Keeper(threading.Thread):
    """Beats every ``interval_s`` by a timer of its own, whatever Celery's loop does, and at once when asked to.

    It lives through Redis's absence, reconnects as soon as its connection is lost, and registers again where Redis has
    lost the record.

    Args:
        registry: where to.
        describe: the worker's record as it is now; cheap, and called on this thread. Its times are not looked at.
        interval_s: time between two beats.
        dead_after_s: for how long a beat lasts: the worker's lease.
        active: the ids of the requests that run now.
        on_cancelled: called with those of them that carry a cancel mark, once in each beat that finds some.
        journal: has the cancel marks; they are not looked for without it.
        on_lost: called when this worker was declared dead while it lived (``swept``: it slept for longer than its lease, and
            what it held was given to others) or another boot has its name (``superseded``). After ``swept`` it registers
            again once this returns, so nothing of before may run by then; after ``superseded`` it never beats again.
        on_forgotten: called when Redis had lost this worker's record, and perhaps more.
        timeout_s: the longest wait for Redis in one beat.
        no_sweep_s: how long no sweep may have been seen before that is warned of.
    """

    def __init__(
        self,
        registry: Registry,
        describe: Callable[[], WorkerRecord],
        *,
        interval_s: float = 5.0,
        dead_after_s: float = 15.0,
        active: Callable[[], list[str]] = list,
        on_cancelled: Callable[[set[str]], None] = lambda _: None,
        journal: CancelMarks | None = None,
        on_lost: Callable[[Lost], None] = lambda _: None,
        on_forgotten: Callable[[], None] = lambda: None,
        timeout_s: float = 3.0,
        no_sweep_s: float = 10.0,
    ) -> None:
        super().__init__(name="celery-mlx-keeper", daemon=True)
        self._registry = registry
        self._describe = describe
        self._interval_s = interval_s
        self._lease_ms = int(dead_after_s * 1000)
        self._active = active
        self._on_cancelled = on_cancelled
        self._journal = journal
        self._on_lost = on_lost
        self._on_forgotten = on_forgotten
        self._timeout_s = timeout_s
        self._waker = _Waker()
        self._ending = threading.Event()
        self._superseded = False
        self._started_at = 0.0
        self._loop_at = time.monotonic()
        self._failures = 0
        self._costs_ms: deque[float] = deque(maxlen=COSTS)
        self._beats = 0
        self._no_sweep_s = no_sweep_s
        self._warn_at = time.monotonic() + no_sweep_s

    def start(self) -> None:
        """Register, then beat. Where Redis is away just now, the first beat registers.

        Raises:
            DuplicateWorker: a worker of this name is alive.
        """
        self._lifeline = Lifeline(self._registry.client, self._describe().identity, timeout_s=self._timeout_s)
        try:
            self._register()
        except GenerationError as error:
            logger.warning("not registered yet: %s", error)
            self._lifeline.close()
        except DuplicateWorker:
            self._lifeline.close()
            raise
        super().start()

    def run(self) -> None:
        """Beat until :meth:`stop`, then take the record out of the registry."""
        due = time.monotonic() + self._interval_s
        while not self._ending.is_set() and not self._superseded:
            self._waker.wait(due, self._lifeline.fileno())
            if self._ending.is_set():
                break
            due = self._next(due, worked=self._beat_safely())
        if not self._superseded:
            self._leave()
        self._lifeline.close()
        self._waker.close()

    def stop(self, timeout_s: float = 10.0) -> None:
        """Take the record out of the registry and end the thread."""
        self._ending.set()
        self._waker.wake()
        if self.is_alive():
            self.join(timeout_s)
        else:
            self._waker.close()

    def beat_soon(self) -> None:
        """Beat at once: something has changed that others should know. From any thread."""
        self._waker.wake()

    def loop_alive(self) -> None:
        """Celery's loop has given a sign. Costs nothing; on Celery's own thread."""
        self._loop_at = time.monotonic()

    def cost_ms(self) -> dict[str, float]:
        """What the last beats took in all, in ms: ``p50``, ``p99``, ``max``; ``count`` since the start. Empty before."""
        costs = sorted(self._costs_ms)
        if not costs:
            return {}
        return {
            "p50": round(percentile(costs, 50), 3),
            "p99": round(percentile(costs, 99), 3),
            "max": round(costs[-1], 3),
            "count": self._beats,
        }

    def _next(self, due: float, *, worked: bool) -> float:
        """When the next beat is due: on the grid of the first one, so that nothing adds up; soon after a failure."""
        now = time.monotonic()
        if not worked:
            self._failures += 1
            wait_s = min(RETRY_LAST_S, RETRY_FIRST_S * 2 ** min(self._failures - 1, 10))
            return float(now + wait_s * random.uniform(0.5, 1.0))
        self._failures = 0
        while due <= now:
            due += self._interval_s
        return due

    def _beat_safely(self) -> bool:
        try:
            started = time.perf_counter()
            self._beat()
            self._costs_ms.append((time.perf_counter() - started) * 1000)
            self._beats += 1
            return True
        except GenerationError as error:
            if self._failures == 0:
                logger.warning("%s; trying again until Redis is back", error)
        except Exception:
            # A worker whose keeper ended would be dead to everyone while it works.
            logger.exception("a heartbeat failed")
        self._lifeline.close()
        return False

    def _beat(self) -> None:
        record = self._record()
        client = self._lifeline.connect()
        beat = self._registry.beat(
            record,
            self._lease_ms,
            client_id=self._lifeline.client_id,
            loop_age_s=time.monotonic() - self._loop_at,
            client=client,
        )
        if beat.answer in ("swept", "superseded"):
            self._lose(beat.answer)
            return
        if beat.answer == "registered":
            self._started_at = self._started_at or beat.at
            logger.warning("Redis had lost this worker's record: registered again")
            self._on_forgotten()
        self._look_for_sweep(beat)
        self._look_for_cancels()

    def _record(self) -> WorkerRecord:
        record = self._describe()
        record.started_at = self._started_at
        record.metrics = {**record.metrics, "beat_ms": self.cost_ms()}
        return record

    def _register(self) -> None:
        self._lifeline.connect()
        registration = self._registry.register(self._record(), self._lease_ms, client_id=self._lifeline.client_id)
        self._started_at = registration.started_at
        if registration.superseded:
            logger.warning("took over the name of %s, which is dead", registration.superseded)

    def _lose(self, lost: Lost) -> None:
        if lost == "swept":
            logger.error(
                "this worker was silent for so long that it was declared dead, and its requests given to others"
            )
            self._on_lost("swept")
            try:
                self._register()
                return
            except DuplicateWorker:
                lost = "superseded"
        logger.error("another worker has taken this one's name: no more heartbeats")
        self._superseded = True
        self._on_lost(lost)

    def _look_for_sweep(self, beat: Beat) -> None:
        now = time.monotonic()
        if beat.swept_at is not None and beat.at - beat.swept_at < self._no_sweep_s:
            self._warn_at = now + self._no_sweep_s
        elif now >= self._warn_at:
            self._warn_at = now + WARN_EVERY_S
            logger.warning("no sweep is running, so nobody takes over from a dead worker: start %s beat", COMMAND)

    def _look_for_cancels(self) -> None:
        running = self._active() if self._journal is not None else []
        if running:
            assert self._journal is not None
            marked = self._journal.cancelled(running)
            if marked:
                self._on_cancelled(marked)

    def _leave(self) -> None:
        try:
            self._registry.leave(self._record(), client=self._lifeline.connect())
        except GenerationError as error:
            logger.warning("%s; the sweep will remove this worker's record", error)
        except Exception:
            logger.exception("this worker's record was not removed")


class _Waker:
    """Waits for a time, for :meth:`wake`, or for the server to close a connection, whichever comes first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._open = True

    def wake(self) -> None:
        """End the wait that is on, or the next one."""
        with self._lock:
            if self._open:
                try:
                    os.write(self._write, b"!")
                except BlockingIOError:
                    return  # full of wake-ups that nobody has seen yet

    def wait(self, until: float, connection: int | None) -> None:
        """Return at a monotonic time, when woken, or when this descriptor becomes readable."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._read, selectors.EVENT_READ)
            if connection is not None:
                selector.register(connection, selectors.EVENT_READ)
            ready = selector.select(max(0.0, until - time.monotonic()))
        if any(key.fd == self._read for key, _ in ready):
            os.read(self._read, 65536)

    def close(self) -> None:
        """Free the descriptors."""
        with self._lock:
            if self._open:
                self._open = False
                os.close(self._read)
                os.close(self._write)

"""The keeper: the thread that writes a worker's heartbeats and holds its connection."""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import TYPE_CHECKING, Literal, TypeAlias

from tasks.errors import GenerationError
from tasks.registry import DuplicateWorker
from tasks.worker.heartbeat.costs import BeatCosts
from tasks.worker.heartbeat.waker import Waker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tasks.messages.registry import WorkerRecord
    from tasks.registry import Beat, Registry
    from tasks.registry.lifeline import Lifeline

    Lost: TypeAlias = Literal["swept", "superseded"]

logger = logging.getLogger(__name__)

#: Waits between attempts while Redis is away: doubled from the first to the last, each with jitter.
RETRY_FIRST_S = 0.1
RETRY_LAST_S = 1.5


class Keeper(threading.Thread):
    """Beats every ``interval_s`` by a timer of its own, whatever Celery's loop does, and at once when asked to.

    It lives through Redis's absence, reconnects as soon as its connection is lost, and registers again where Redis has
    lost the record.

    Args:
        registry: where to.
        lifeline: the connection that stands for the worker; the keeper's alone.
        describe: the worker's record as it is now; cheap, and called on this thread. Its times are not looked at.
        interval_s: time between two beats.
        dead_after_s: for how long a beat lasts: the worker's lease.
        on_lost: called when this worker was declared dead while it lived (``swept``: it slept for longer than its lease, and
            what it held was given to others) or another boot has its name (``superseded``). After ``swept`` it registers
            again once this returns, so nothing of before may run by then; after ``superseded`` it never beats again.
        on_forgotten: called when Redis had lost this worker's record, and perhaps more.
        after_beat: called after each beat that Redis has answered.
    """

    def __init__(
        self,
        registry: Registry,
        lifeline: Lifeline,
        describe: Callable[[], WorkerRecord],
        *,
        interval_s: float = 5.0,
        dead_after_s: float = 15.0,
        on_lost: Callable[[Lost], None] = lambda _: None,
        on_forgotten: Callable[[], None] = lambda: None,
        after_beat: Iterable[Callable[[Beat], None]] = (),
    ) -> None:
        super().__init__(name="celery-mlx-keeper", daemon=True)
        self._registry = registry
        self._lifeline = lifeline
        self._describe = describe
        self._interval_s = interval_s
        self._lease_ms = int(dead_after_s * 1000)
        self._on_lost = on_lost
        self._on_forgotten = on_forgotten
        self._after_beat = tuple(after_beat)
        self._waker = Waker()
        self._ending = threading.Event()
        self._superseded = False
        self._has_warned = False
        self._started_at = 0.0
        self._loop_at = time.monotonic()
        #: Beats in a row that failed.
        self.failures = 0
        #: The costs of the beats so far.
        self.costs = BeatCosts()

    def start(self) -> None:
        """Register, then beat. Where Redis is away just now, the first beat registers.

        Raises:
            DuplicateWorker: a worker of this name is alive.
        """
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

    def _next(self, due: float, *, worked: bool) -> float:
        """Return when the next beat is due: on the grid of the first one, so that nothing adds up; soon after a failure."""
        now = time.monotonic()
        if not worked:
            self.failures += 1
            wait_s = min(RETRY_LAST_S, RETRY_FIRST_S * 2 ** min(self.failures - 1, 10))
            return float(now + wait_s * random.uniform(0.5, 1.0))
        #: Beats in a row that failed.
        self.failures = 0
        while due <= now:
            due += self._interval_s
        return due

    def _beat_safely(self) -> bool:
        try:
            started = time.perf_counter()
            self._beat()
            self.costs.note(time.perf_counter() - started)
            return True
        except GenerationError as error:
            if self.failures == 0:
                logger.warning("%s; trying again until Redis is back", error)
        except Exception:
            # A worker whose keeper ended would be dead to everyone while it works.
            logger.exception("a heartbeat failed")
        self._lifeline.close()
        return False

    def _beat(self) -> None:
        if not self._started_at and not self._register_late():
            return
        record = self._record()
        client = self._lifeline.connect()
        self._warn_of_silence()
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
        for look in self._after_beat:
            look(beat)

    def _warn_of_silence(self) -> None:
        """Say once that Redis closes this connection again and again; it is opened again each time, and nothing is lost."""
        if self._lifeline.closed_for_silence and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "Redis closes connections that are silent for a while: set its timeout to 0, or to more than the %g s between "
                "two heartbeats",
                self._interval_s,
            )

    def _record(self) -> WorkerRecord:
        record = self._describe()
        record.started_at = self._started_at
        record.metrics = {**record.metrics, "beat_ms": self.costs.as_ms()}
        return record

    def _register(self) -> None:
        self._lifeline.connect()
        registration = self._registry.register(self._record(), self._lease_ms, client_id=self._lifeline.client_id)
        self._started_at = registration.started_at
        if registration.superseded:
            logger.warning("took over the name of %s, which is dead", registration.superseded)

    def _register_late(self) -> bool:
        """Register a worker that Redis was away for when it started: its name may still be that of a dead predecessor."""
        try:
            self._register()
        except DuplicateWorker:
            self._lose("superseded")
            return False
        self._on_forgotten()
        return True

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

    def _leave(self) -> None:
        try:
            self._registry.leave(self._record(), client=self._lifeline.connect())
        except GenerationError as error:
            logger.warning("%s; the sweep will remove this worker's record", error)
        except Exception:
            logger.exception("this worker's record was not removed")

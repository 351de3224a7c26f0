"""Time limits of running requests. One timer of the worker's loop serves all of them.

A timer of kombu's that is cancelled stays in its heap until its time, and with it all that its callback refers to: with an hour's
limit, an hour's worth of jobs and messages.
"""

from __future__ import annotations

import heapq
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.worker.attempts.job import Job, StopReason


#: Called when a limit has passed: whether it is a soft one, and how long it is.
OnTimeout: TypeAlias = "Callable[[bool, float], None]"
#: The most that a timer may fire before its time.
EARLY_S = 0.005


class Limit(NamedTuple):
    """A limit of a job: when to stop it (monotonic seconds), why, and after how many seconds that is."""

    at: float
    reason: StopReason
    limit_s: float


class TimeLimits:
    """Stops jobs when their limits have passed. Jobs are added, and expire, on the thread of the loop.

    Args:
        call_later: has the loop call a function after so many seconds.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        call_later: Callable[[float, Callable[[], None]], Any],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._call_later = call_later
        self._clock = clock
        self._lock = threading.Lock()
        self._limits: dict[Job, tuple[list[Limit], OnTimeout | None]] = {}
        #: The times of the timers that are out, as a heap.
        self._timers: list[float] = []

    def add(self, job: Job, soft_s: float | None, hard_s: float | None, on_timeout: OnTimeout | None = None) -> None:
        """Stop a job after these many seconds; ``None`` and 0 are no limits."""
        now = self._clock()
        given: tuple[tuple[StopReason, float | None], ...] = (("soft_time_limit", soft_s), ("time_limit", hard_s))
        limits = [Limit(now + limit_s, reason, limit_s) for reason, limit_s in given if limit_s]
        if limits:
            with self._lock:
                self._limits[job] = (limits, on_timeout)
            self._wake_at(min(limit.at for limit in limits))

    def remove(self, job: Job) -> None:
        """Forget a job that has ended. From any thread."""
        with self._lock:
            self._limits.pop(job, None)

    def expire(self) -> None:
        """Stop jobs that are over their limits, and set the timer for the next limit."""
        now = self._clock() + EARLY_S
        while self._timers and self._timers[0] <= now:
            heapq.heappop(self._timers)
        due = []
        with self._lock:
            for job, (limits, on_timeout) in self._limits.items():
                passed = [limit for limit in limits if limit.at <= now]
                due += [(job, limit, on_timeout) for limit in passed]
                limits[:] = [limit for limit in limits if limit not in passed]
            left = [limit.at for limits, _ in self._limits.values() for limit in limits]
        if left:
            self._wake_at(min(left))
        for job, limit, on_timeout in due:
            job.limit_s = limit.limit_s
            if on_timeout is not None:
                on_timeout(limit.reason == "soft_time_limit", limit.limit_s)
            job.stop(limit.reason)

    def _wake_at(self, at: float) -> None:
        if not self._timers or at < self._timers[0]:
            heapq.heappush(self._timers, at)
            self._call_later(max(0.0, at - self._clock()), self.expire)

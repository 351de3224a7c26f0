"""Time limits stop jobs in time, and keep nothing of those that have ended."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from tasks.worker.attempts.job import Job
from tasks.worker.celery.time_limits import TimeLimits

if TYPE_CHECKING:
    from collections.abc import Callable


class Loop:
    """A loop whose time a test moves; it calls what is due."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def clock(self) -> float:
        return self.now

    def call_later(self, after_s: float, call: Callable[[], None]) -> None:
        self.timers.append((self.now + after_s, call))

    def advance(self, seconds: float) -> None:
        until = self.now + seconds
        while due := sorted((timer for timer in self.timers if timer[0] <= until), key=lambda timer: timer[0]):
            self.timers.remove(due[0])
            self.now = max(self.now, due[0][0])
            due[0][1]()
        self.now = until


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def limits(loop: Loop) -> TimeLimits:
    return TimeLimits(loop.call_later, loop.clock)


def stopped(job: Job) -> tuple[Any, Any]:
    """Why a job was stopped, and by which limit."""
    return job.reason, job.limit_s


def test_soft_and_hard(loop: Loop, limits: TimeLimits) -> None:
    """A job is stopped by its soft limit and then by its hard one, each once; Celery hears of both before."""
    job, heard = Job("t1", "q"), []
    limits.add(job, 2.0, 5.0, lambda soft, limit_s: heard.append((soft, limit_s, job.reason)))
    loop.advance(1.9)
    assert stopped(job) == (None, None)
    loop.advance(0.2)
    assert stopped(job) == ("soft_time_limit", 2.0)
    loop.advance(10.0)
    assert stopped(job) == ("time_limit", 5.0)
    assert heard == [(True, 2.0, None), (False, 5.0, "soft_time_limit")]
    assert loop.timers == []


def test_every_job_at_its_time(loop: Loop, limits: TimeLimits) -> None:
    """However limits of different lengths come and go, each job is stopped at its own."""
    jobs = {limit_s: Job(str(limit_s), "q") for limit_s in (3600.0, 10.0, 60.0, 10.5, 1.0)}
    for limit_s, job in jobs.items():
        limits.add(job, None, limit_s)
    limits.remove(jobs[10.0])
    for limit_s in sorted(jobs):
        loop.advance(100.0 + limit_s - 0.01 - loop.now)
        assert jobs[limit_s].reason is None
        loop.advance(0.02)
        assert (jobs[limit_s].reason is None) == (limit_s == 10.0)


def test_nothing_is_kept_of_what_has_ended(loop: Loop, limits: TimeLimits) -> None:
    """Thousands of short jobs with a limit of an hour, beside one with an hour to go, leave neither jobs nor timers behind."""
    longest = Job("long", "q")
    limits.add(longest, None, 3600.0)
    kept = []
    for number in range(2_000):
        job = Job(str(number), "q")
        kept.append(weakref.ref(job))
        limits.add(job, None, 1.0 if number % 2 else 3600.0)
        loop.advance(0.5)
        limits.remove(job)
        loop.advance(0.6)
    del job
    gc.collect()
    assert [found for found in kept if found() is not None] == []
    assert len(loop.timers) <= 2
    loop.advance(3600.0)
    assert longest.reason == "time_limit"


def test_no_limits(loop: Loop, limits: TimeLimits) -> None:
    """A job without limits costs no timer."""
    limits.add(Job("t1", "q"), None, 0)
    assert loop.timers == []

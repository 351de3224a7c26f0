"""A job: the one way to stop a request, whoever asks and however often."""

from __future__ import annotations

import threading

import pytest

from tasks.worker.attempts.job import Job, StopReason, current_job, set_current_job


@pytest.fixture
def job() -> Job:
    return Job("t1", "tier-under-3B")


def test_a_revoke_cancels(job: Job) -> None:
    """What Celery calls for a revoke stops the job as cancelled."""
    job.terminate("SIGTERM")
    assert job.reason == "cancelled"


def test_a_cold_shutdown_gives_back() -> None:
    """The same call gives the request back where Celery has noted that it cancels it to run elsewhere."""
    job = Job("t1", "tier-under-3B", requeues=lambda: True)
    job.terminate()
    assert job.reason == "requeue"


@pytest.mark.parametrize(
    ("first", "second", "stands"),
    [
        ("cancelled", "time_limit", "cancelled"),
        ("time_limit", "cancelled", "time_limit"),
        ("requeue", "cancelled", "requeue"),
        ("cancelled", "soft_time_limit", "cancelled"),
        ("soft_time_limit", "time_limit", "time_limit"),
        ("soft_time_limit", "cancelled", "cancelled"),
        ("soft_time_limit", "requeue", "requeue"),
    ],
)
def test_the_first_reason_stands(job: Job, first: StopReason, second: StopReason, stands: StopReason) -> None:
    """A soft limit gives way to what comes after it; everything else stands, and is told once."""
    told: list[StopReason] = []
    job.on_stop(told.append)
    for reason in (first, second, second):
        job.stop(reason)
    assert job.reason == stands
    assert told == ([first] if stands == first else [first, second])


def test_a_job_that_was_stopped_before_it_ran(job: Job) -> None:
    """Whoever learns of the job only after it was stopped is told at once."""
    job.stop("cancelled")
    told: list[StopReason] = []
    job.on_stop(told.append)
    assert told == ["cancelled"]


def test_nobody_is_told_after_the_end(job: Job) -> None:
    """A stop that comes when the request has finished reaches nobody."""
    told: list[StopReason] = []
    job.on_stop(told.append)
    job.on_stop(None)
    job.stop("cancelled")
    assert told == []


def test_each_thread_has_its_own_job(job: Job) -> None:
    """The body finds the job of its own thread."""
    set_current_job(job)
    found: list[Job | None] = [current_job()]
    other = threading.Thread(target=lambda: found.append(current_job()))
    other.start()
    other.join()
    set_current_job(None)
    assert found == [job, None]
    assert current_job() is None

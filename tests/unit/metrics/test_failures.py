"""The last failures of a worker."""

from __future__ import annotations

from tasks.metrics.failures import KEPT, LONGEST, RecentFailures


def test_the_last_few_with_their_age() -> None:
    """Old ones are forgotten, long reasons are cut."""
    now = 100.0
    failures = RecentFailures(lambda: now)
    for number in range(KEPT + 3):
        failures.note(f"id-{number}", "m", "engine_failed", "x" * 2 * LONGEST)
        now += 1.0
    found = failures.snapshot()
    assert [failure["task_id"] for failure in found] == [f"id-{number}" for number in range(3, KEPT + 3)]
    assert found[-1] == {
        "age_s": 1.0,
        "task_id": "id-7",
        "model": "m",
        "code": "engine_failed",
        "reason": "x" * LONGEST,
    }

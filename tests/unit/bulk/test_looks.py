"""How often a job looks for results."""

from __future__ import annotations

from tasks.bulk.looks import LEAST_S, LONGEST_S, Looks


def test_slow_lines_cost_few_looks() -> None:
    """While few of the requests end, looks become rare; when many end they become frequent again."""
    looks = Looks()
    pauses = [looks.pause_s(1, 64) for _ in range(20)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_S
    assert all(looks.pause_s(16, 64) == 0.0 for _ in range(10))
    assert LEAST_S < looks.pause_s(0, 64) < LONGEST_S


def test_nothing_in_redis() -> None:
    """A job that can send nothing now does not look all the time, and one whose lines cannot be sent goes on at once."""
    assert Looks().pause_s(0, 0) > 0
    assert Looks().pause_s(1_000, 0) == 0.0

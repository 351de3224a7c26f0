"""The soonest first token of the recent ones."""

from __future__ import annotations

from tasks.worker.attempts.pace import FRESH_S, LEAST, Pace


def test_soonest() -> None:
    """It is the least of the last minute, for each model, and nothing before there are enough of them."""
    now = 0.0
    pace = Pace(lambda: now)
    for number in range(LEAST):
        assert pace.soonest_s("m") == 0
        pace.note("m", 3.0 + number)
    assert pace.soonest_s("m") == 3.0
    assert pace.soonest_s("other") == 0
    now = FRESH_S + 1
    assert pace.soonest_s("m") == 0

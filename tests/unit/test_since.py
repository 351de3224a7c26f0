"""``python -m benchmarks.since``: what it concludes from figures."""

from __future__ import annotations

import pytest

from benchmarks.since import _tell

THEN = {"load_s": 10.0, "tokens_per_s": 100.0, "processor_s": 10.0, "peak_memory": 100.0}


@pytest.mark.parametrize(
    ("now", "status"),
    [({}, 0), ({"load_s": 10.9}, 0), ({"load_s": 11.2}, 1), ({"tokens_per_s": 97.0}, 1), ({"peak_memory": 103.0}, 1)],
)
def test_figures_out_of_their_bounds_fail(
    capsys: pytest.CaptureFixture[str], now: dict[str, float], status: int
) -> None:
    """By the medians, of which one disturbed turn is no part."""
    disturbed = dict.fromkeys(THEN, 1000000.0)
    seen = {"then": [THEN, THEN, disturbed], "now": [{**THEN, **now}] * 3}
    assert _tell("abc", seen) == status
    assert ("out of bounds" in capsys.readouterr().out) == bool(status)

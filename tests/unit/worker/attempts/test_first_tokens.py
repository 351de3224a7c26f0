"""The soonest first token of the recent ones."""

from __future__ import annotations

from tasks.worker.attempts.first_tokens import FRESH_S, LEAST, FirstTokens


def test_soonest() -> None:
    """It is the least of the last minute, for each model, and nothing before there are enough of them."""
    now = 0.0
    first_tokens = FirstTokens(lambda: now)
    for number in range(LEAST):
        assert first_tokens.soonest_s("m") == 0
        first_tokens.note("m", 3.0 + number)
    assert first_tokens.soonest_s("m") == 3.0
    assert first_tokens.soonest_s("other") == 0
    now = FRESH_S + 1
    assert first_tokens.soonest_s("m") == 0

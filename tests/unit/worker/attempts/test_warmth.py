"""For how long a request is worth waiting for the worker where its prompt is warm."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tasks.worker.attempts.warmth import Warmth
from worker_config.settings import Settings

VALUES = {"prompt": "x" * 4_000, "model": "m"}


def attempt(first_token_s: float | None = 2.0, cached_tokens: int = 0, **changes: Any) -> Any:
    """An attempt with a prompt of 1,000 tokens."""
    first_token_at = None if first_token_s is None else 10.0 + first_token_s
    return SimpleNamespace(
        **{
            "model": "m",
            "prompt_tokens": 1_000,
            "cached_tokens": cached_tokens,
            "claimed_at": 10.0,
            "first_token_at": first_token_at,
            "has_resumed": False,
            **changes,
        }
    )


class Notes:
    """What was noted last."""

    def __init__(self, most_wait_s: float = 60.0, **changes: Any) -> None:
        self.waits_ms: list[int] = []
        settings = Settings(default_model="m", affinity_wait_s=most_wait_s, **changes)
        self.warmth = Warmth(settings, lambda waits: setattr(self, "waits_ms", list(waits.values())))

    def after(self, *attempts: Any) -> list[int]:
        """The waits of the next request that begins like this."""
        prefixes = self.warmth.prefixes(None, VALUES)
        for done in attempts:
            self.warmth.computed(done, prefixes)
        self.warmth.computing("m", prefixes)
        return self.waits_ms


def test_half_of_the_prefill() -> None:
    """4,000 characters in two seconds are worth one second; the first 1,024 of them are worth their part."""
    assert Notes().after(attempt()) == [1_000, 256]


def test_nothing_is_looked_for_where_it_is_off() -> None:
    """Without affinity no prompt is hashed, and nothing noted."""
    notes = Notes(affinity=False)
    assert notes.warmth.prefixes(None, VALUES) == []
    assert notes.after(attempt()) == []


def test_what_was_computed_counts() -> None:
    """A prompt that came out of the cache but for half of it took its time for that half."""
    assert Notes().after(attempt(1.0, cached_tokens=500)) == [1_000, 256]


def test_the_quickest_counts() -> None:
    """Most requests wait for others in their batch as well."""
    assert Notes().after(attempt(9.0), attempt(2.0), attempt(5.0))[0] == 1_000


def test_the_setting_bounds_it() -> None:
    """Nothing is worth more than that."""
    assert Notes(0.5).after(attempt())[0] == 500


@pytest.mark.parametrize(
    "useless", [attempt(None), attempt(has_resumed=True), attempt(cached_tokens=990), attempt(model="other")]
)
def test_what_says_nothing(useless: Any) -> None:
    """Without a measurement nothing is worth waiting for: an attempt without a token, a resumed or a cached one is none."""
    assert Notes().after(useless) == [0, 0]


def test_where_no_producer_looks() -> None:
    """What follows a link of a chain, and a short prompt, is noted nowhere."""
    notes = Notes()
    assert notes.warmth.prefixes({"text": "before"}, VALUES) == []
    notes.warmth.computing("m", notes.warmth.prefixes(None, {"prompt": "short"}))
    assert notes.waits_ms == []

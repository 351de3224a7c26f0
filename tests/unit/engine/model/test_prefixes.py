"""Cached prompts: what can be shared is waited for, what cannot is not, and asking changes nothing."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, cast

import mlx.core as mx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx_lm.models.cache import ChunkedKVCache, make_prompt_cache

from benchmarks.models.tiny import build
from tasks.engine.model.batching.batch import Batch
from tasks.engine.model.batching.prefixes import Prefixes, common_prefix
from tasks.engine.model.batching.stepping import Stepping
from tasks.engine.model.selftest import Follower, try_out
from tasks.messages.engine import Sampling

if TYPE_CHECKING:
    from tasks.engine.sampling.sampler import BatchSampler

pytestmark = pytest.mark.xdist_group("mlx")

COMMON = [(31 * n) % 320 for n in range(200)]


class Turns:
    """A batch whose rows follow sequences, turned by hand; ``waits`` counts the turns that a request waited for a prefix."""

    def __init__(self, name: str) -> None:
        self.follower = Follower()
        self.model = build(name)
        self.batch = Batch(
            self.model,
            cast("BatchSampler", self.follower),
            Stepping(batching=try_out(self.model).batching),
            prefill_step_tokens=16,
            prompt_cache_bytes=1 << 26,
        )
        self.waits = 0

    def insert(self, uid: int, prompt: list[int], limit: int) -> int:
        """Add a row; returns how many of its tokens were cached."""
        self.follower.follow(uid, [*prompt, *([uid] * (limit + 1))])
        return self.batch.insert(uid, prompt, [], limit, Sampling())

    def run(self, arrivals: dict[int, list[int]], tokens: int = 4) -> dict[int, int]:
        """Let these prompts in as an engine's loop does, to their end; how many tokens of each were cached."""
        waiting, left, cached = dict(arrivals), dict.fromkeys(arrivals, tokens), {}
        while left:
            for uid, prompt in list(waiting.items()):
                if self.batch.shares_prefill(prompt):
                    self.waits += 1
                else:
                    cached[uid] = self.insert(uid, waiting.pop(uid), tokens)
            for step in (self.batch.decode, self.batch.prefill):
                for draw in step():
                    left[draw.uid] -= 1
                    if not left[draw.uid]:
                        self.batch.remove([draw.uid], keep=True)
                        del left[draw.uid]
        return cached


@pytest.mark.parametrize(
    ("name", "shares"), [("llama", True), ("llama, windows", False), ("gemma3_text", False), ("mamba", False)]
)
def test_what_cannot_be_shared_is_not_waited_for(name: str, shares: bool) -> None:
    """Three prompts with 200 tokens in common: full attention computes these once, and windows of 16 tokens, which have
    forgotten them by then, or a state, which has no parts, lose no turn over it."""
    turns = Turns(name)
    cached = turns.run({uid: [*COMMON, uid] for uid in range(3)})
    assert (turns.waits > 0) is shares
    assert cached == {0: 0, 1: 200, 2: 200} if shares else {0: 0, 1: 0, 2: 0}


@pytest.mark.parametrize("name", ["llama", "llama, windows", "gemma3_text", "mamba", "qwen3_next"])
def test_the_next_turn_of_a_conversation_is_spared_all_before_it(name: str) -> None:
    """What begins with the whole of an earlier prompt and its answer goes on from there, for every kind of cache."""
    turns = Turns(name)
    turns.run({1: COMMON})
    said = [*COMMON, *([1] * 4)]
    assert turns.run({2: [*said, 5, 6, 7]}) == {2: len(said) - 1}


def test_windows_share_what_they_still_have() -> None:
    """Below its window's length such a cache can be cut back to what another prompt has in common with it."""
    turns = Turns("llama, windows")
    turns.run({1: [*COMMON[:10], 1]}, tokens=2)
    assert turns.run({2: [*COMMON[:10], 2]}, tokens=2) == {2: 10}


def test_asking_changes_nothing() -> None:
    """Whether a prefix is worth waiting for is asked in every turn for every request: nothing is copied or stored for it."""
    turns = Turns("llama")
    turns.insert(1, COMMON, 50)
    for _ in range(20):
        turns.batch.decode()
        turns.batch.prefill()
    turns.insert(2, [*COMMON[:100], *([2] * 100)], 50)
    before = turns.batch.prompt_cache_bytes
    assert not turns.batch.shares_prefill([*COMMON, 3])  # the row that decodes has it already
    assert not turns.batch.shares_prefill([*COMMON[:100], 3])
    assert turns.batch.shares_prefill([*COMMON[:100], *([2] * 100)])
    assert turns.batch.prompt_cache_bytes == before


def test_held_is_what_fetch_gives() -> None:
    """Prompts that are stored, longer, shorter, and of another beginning."""
    model = build("llama")
    prefixes = Prefixes(model, 1 << 26)
    cache = make_prompt_cache(model)
    model(mx.array([COMMON]), cache=cache)
    prefixes.store(COMMON, cache)
    for tokens in (COMMON, COMMON[:150], [*COMMON, 1, 2], [*COMMON[:80], 9, 9], [1, 2, 3], COMMON[:1]):
        held = prefixes.held(tokens)
        fetched, length = prefixes.fetch(tokens)
        assert held == length == fetched[0].offset < len(tokens)
        assert length == min(common_prefix(COMMON, tokens), len(tokens) - 1)


def test_an_unknown_kind_of_cache_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be told to be cut back rightly is computed again."""
    monkeypatch.setattr("tasks.engine.model.batching.prefixes.make_prompt_cache", lambda _: [ChunkedKVCache(16)])
    prefixes = Prefixes(build("llama"), 1 << 26)
    assert (prefixes.reach, prefixes.max_bytes) == (0, 0)
    assert not prefixes.make_room(1)


TOKENS = st.lists(st.integers(0, 2), max_size=300)


@given(TOKENS, TOKENS, st.integers(0, 300))
def test_common_prefix_is_the_naive_one(left: list[int], right: list[int], shared: int) -> None:
    """Element by element."""
    right = left[:shared] + right
    naive = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))
    assert common_prefix(left, right) == naive

"""The arithmetic of sampling against mlx-lm's own filters and naive sums."""

from __future__ import annotations

import math
from typing import cast

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.sample_utils import apply_top_k, apply_top_p

from tasks.engine.sampling import drawing

ALMOST_ONE = 1 - 2.0**-24
WEIGHTS = st.lists(st.sampled_from([0.0, 0.0, 1e-6, 0.5, 1.0, 3.0]), min_size=1, max_size=700).filter(any)
UNIFORM = st.sampled_from([0.0, ALMOST_ONE]) | st.integers(0, 2**24 - 1).map(lambda n: n / 2**24)


def logits_like(shape: str, rows: int = 4, vocabulary: int = 3000) -> mx.array:
    """Logits of several kinds: as a language model's, flat, peaked, and with many ties."""
    normal = mx.random.normal((rows, vocabulary), key=mx.random.key(5))
    match shape:
        case "model":
            return normal * 3
        case "flat":
            return normal * 0.01
        case "peaked":
            return normal * 30
        case _:
            return mx.round(normal * 2)


def tail_of(top_p: float, logits: mx.array) -> mx.array:
    return mx.array([[math.log2((1 - top_p) / logits.shape[-1])]] * len(logits))


@given(WEIGHTS, UNIFORM, UNIFORM)
@settings(deadline=None)
def test_a_draw_has_weight_and_follows_the_sums(weights: list[float], first: float, second: float) -> None:
    """The token drawn has a weight, and its block and place are where the cumulated weights pass the two numbers."""
    token = cast("int", drawing.draw(mx.array([weights]), mx.array([[first, second]])).item())
    assert weights[token] > 0
    start = token - token % drawing.BLOCK_TOKENS
    block = weights[start : start + drawing.BLOCK_TOKENS]
    slack = 1e-5 * sum(weights)
    assert sum(weights[:start]) - slack <= first * sum(weights) <= sum(weights[:start]) + sum(block) + slack
    inside = token - start
    assert sum(block[:inside]) - slack <= second * sum(block) <= sum(block[: inside + 1]) + slack


@pytest.mark.parametrize("vocabulary", [1000, 4 * drawing.BLOCK_TOKENS])
def test_every_row_draws_for_itself(vocabulary: int) -> None:
    """Rows of one call have weights and numbers of their own, whether or not the last block is full."""
    weights = mx.zeros((3, vocabulary))
    for row, token in enumerate((0, 255, 999)):
        weights[row, token] = 2.0
    assert drawing.draw(weights, mx.array([[0.0, 0.0], [ALMOST_ONE, 0.5], [0.5, ALMOST_ONE]])).tolist() == [0, 255, 999]


@pytest.mark.parametrize("shape", ["model", "flat", "peaked", "ties"])
@pytest.mark.parametrize("top_p", [0.01, 0.5, 0.9, 0.999])
def test_a_nucleus_is_mlx_lms(shape: str, top_p: float) -> None:
    """The tokens that top_p keeps are those that mlx-lm's filter keeps, but for one where rounding decides."""
    logits = logits_like(shape)
    scores = drawing.bits(logits, mx.argmax(logits, axis=-1))
    floor = drawing.nucleus_floor(scores, mx.full((4, 1), top_p), tail_of(top_p, logits))
    logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    ours = scores >= floor
    theirs = apply_top_p(logprobs, top_p) > -math.inf
    assert mx.all(mx.sum(ours != theirs, axis=-1) <= 1)
    assert mx.all(mx.any(ours, axis=-1))


@pytest.mark.parametrize("shape", ["model", "flat", "peaked"])
@pytest.mark.parametrize("top_p", [None, 0.5, 0.95])
def test_ranks_are_mlx_lms(shape: str, top_p: float | None) -> None:
    """top_k within top_p keeps what mlx-lm's two filters keep, one after the other, for a top_k of each row's own."""
    logits = logits_like(shape)
    scores = drawing.bits(logits, mx.argmax(logits, axis=-1))
    top_k = [1, 7, 40, 64]
    floor = drawing.ranked_floor(
        scores, 64, mx.array(top_k)[:, None], None if top_p is None else mx.full((4, 1), top_p)
    )
    logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    if top_p is not None:
        logprobs = apply_top_p(logprobs, top_p)
    theirs = [apply_top_k(logprobs[n : n + 1], k) > -math.inf for n, k in enumerate(top_k)]
    assert mx.array_equal(scores >= floor, mx.concatenate(theirs))


def test_ties_with_the_last_rank_are_kept() -> None:
    """Nothing but chance could choose among equals, so top_k keeps them all."""
    scores = mx.array([[0.0, -1.0, -1.0, -1.0, -2.0]])
    assert drawing.ranked_floor(scores, 2, mx.array([[2]]), None).tolist() == [[-1.0]]


def test_uniform_numbers_are_a_function_of_seed_and_position() -> None:
    """The same on every machine and in every version: a change would break resumed requests."""
    assert drawing.uniforms_of(7, 0) == (0.07760661840438843, 0.7222424745559692)
    assert drawing.uniforms_of(-1, 3) != drawing.uniforms_of(1, 3)
    many = [number for position in range(4000) for number in drawing.uniforms_of(2**64 - 1, position)]
    assert 0 <= min(many) < 0.001
    assert 0.999 < max(many) < 1
    assert abs(sum(many) / len(many) - 0.5) < 0.01
    assert mx.all(mx.array(many) < 1)

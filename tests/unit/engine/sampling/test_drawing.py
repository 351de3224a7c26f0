"""The arithmetic of sampling against mlx-lm's own filters and naive sums."""

from __future__ import annotations

import math
from typing import cast

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx_lm.sample_utils import apply_top_k, apply_top_p

from tasks.engine.sampling import drawing

WEIGHTS = st.lists(st.sampled_from([0.0, 0.0, 1e-30, 1e-6, 0.5, 1.0, 3.0]), min_size=1, max_size=700).filter(any)


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


def draw(weights: list[float], seed: int) -> int:
    words = drawing.random_words(seed, 0, drawing.numbers_for(len(weights)))
    return cast("int", drawing.draw(mx.array([weights]), mx.array(drawing.exponentials_of(words[None]))).item())


@given(WEIGHTS, st.integers(0, 2**64 - 1))
def test_what_has_no_weight_is_never_drawn(weights: list[float], seed: int) -> None:
    """Whatever the numbers, and wherever the blocks end."""
    assert weights[draw(weights, seed)] > 0


@pytest.mark.parametrize("vocabulary", [1000, 4 * drawing.BLOCK_TOKENS])
def test_every_row_draws_for_itself(vocabulary: int) -> None:
    """Rows of one call have weights and numbers of their own, whether or not the last block is full."""
    weights = mx.zeros((3, vocabulary))
    for row, token in enumerate((0, 255, 999)):
        weights[row, token] = 2.0
    words = np.stack([drawing.random_words(row, 0, drawing.numbers_for(vocabulary)) for row in range(3)])
    assert drawing.draw(weights, mx.array(drawing.exponentials_of(words))).tolist() == [0, 255, 999]


@pytest.mark.parametrize("unlikely", [3, 700, 999])
@pytest.mark.parametrize("likely", [5, 800])
def test_no_token_is_too_unlikely(unlikely: int, likely: int) -> None:
    """A token of one chance in a thousand million beside one that has all the rest is drawn where its numbers say so: before,
    behind or beside it in its block."""
    weights = [0.0] * 1000
    weights[likely], weights[unlikely] = 1.0, 1e-9
    words = np.full(drawing.numbers_for(len(weights)), 2**32 - 1, np.uint32)
    blocks = len(words) - drawing.BLOCK_TOKENS
    words[unlikely // drawing.BLOCK_TOKENS] = words[blocks + unlikely % drawing.BLOCK_TOKENS] = 0
    exponentials = mx.array(drawing.exponentials_of(words[None]))
    assert drawing.draw(mx.array([weights]), exponentials).item() == unlikely


def test_draws_are_in_proportion_to_the_weights() -> None:
    """Twenty thousand draws from four tokens in three blocks."""
    weights = np.zeros(1000, np.float32)
    weights[[1, 2, 600, 999]] = 1, 2, 3, 4
    rows = 20_000
    words = np.stack([drawing.random_words(7, n, drawing.numbers_for(len(weights))) for n in range(rows)])
    drawn = drawing.draw(mx.array(np.broadcast_to(weights, (rows, 1000))), mx.array(drawing.exponentials_of(words)))
    counts = np.bincount(np.array(drawn), minlength=1000)[[1, 2, 600, 999]]
    expected = rows * np.array([0.1, 0.2, 0.3, 0.4])
    assert counts.sum() == rows
    assert ((counts - expected) ** 2 / expected).sum() < 21  # one in ten thousand at three degrees of freedom


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


def test_random_numbers_are_a_function_of_seed_and_position() -> None:
    """The same on every machine and in every version: a change would break resumed requests."""
    assert drawing.random_words(7, 0, 3).tolist() == [1008207343, 1761826650, 3139540319]
    assert drawing.random_words(-1, 3, 2).tolist() != drawing.random_words(1, 3, 2).tolist()
    assert drawing.exponentials_of(np.array([0, 2**31, 2**32 - 1], np.uint32)).tolist() == pytest.approx(
        [2.0**-33, math.log(2), 33 * math.log(2)], rel=1e-6
    )
    many = np.concatenate([drawing.exponentials_of(drawing.random_words(2**64 - 1, n, 100)) for n in range(400)])
    assert abs(many.mean() - 1) < 0.02
    assert abs(many.var() - 1) < 0.05


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_which_rows_are_numbers(dtype: mx.Dtype) -> None:
    """NaN anywhere, infinity anywhere and nothing but minus infinity are not; a few tokens that cannot come are no fault."""
    logits = mx.random.normal((6, 300), key=mx.random.key(1)).astype(dtype)
    logits[1, 250] = math.nan
    logits[2] = math.nan
    logits[3, 7] = math.inf
    logits[4] = -math.inf
    logits[5, :200] = -math.inf
    best = mx.argmax(logits, axis=-1)
    assert drawing.are_numbers(logits, best).tolist() == [True, False, False, False, False, True]

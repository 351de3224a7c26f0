"""The arithmetic of sampling on ``[rows, vocabulary]`` arrays, with one parameter for each row and no state.

Logits appear as *bits*: how many powers of two a token is less likely than the row's likeliest one, at temperature 1. So the
best token has 0 bits, all others fewer, and a token's weight is ``2 ** bits``. Powers of two take less than half the time of
powers of e on a CPU.
"""

from __future__ import annotations

import hashlib
import math
from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

#: A draw chooses a block of tokens first; a vocabulary has about as many blocks as a block has tokens.
BLOCK_TOKENS = 256
#: A token's chance is right down to 2 ** -WORD_BITS of the likeliest one's.
WORD_BITS = 32

_LOG2_E = math.log2(math.e)
#: Small blocks where candidates are gathered from many of them.
_RANK_BLOCK_TOKENS = 32
#: Most nuclei of a trained model are smaller than this.
_FEW_TOKENS = 256


def bits(logits: mx.array, best: mx.array) -> mx.array:
    """``[rows, vocabulary]`` bits of single-precision logits; ``best`` is each row's argmax, ``[rows]``."""
    return (logits - mx.take_along_axis(logits, best[:, None], axis=-1)) * _LOG2_E


def are_numbers(logits: mx.array, best: mx.array) -> mx.array:
    """Of each row, ``[rows]``, whether its logits are numbers one of which is finite.

    A look at the row's greatest logit costs nothing, and is enough: argmax finds the first NaN on a CPU. On a GPU it passes
    over a NaN beside numbers, as if that token could not come; a model that is broken computes nothing but NaN.
    """
    return mx.isfinite(mx.take_along_axis(logits, best[:, None], axis=-1)[:, 0])


def weigh(scores: mx.array) -> mx.array:
    """``2 ** scores``, elementwise."""
    return mx.power(2.0, scores)


def logprobs(scores: mx.array, total: mx.array) -> mx.array:
    """Natural log-probabilities of some ``scores`` of rows whose weights sum up to ``total``, ``[rows, 1]``."""
    return (scores - mx.log2(total)) / _LOG2_E


def likeliest(scores: mx.array, width: int) -> tuple[mx.array, mx.array]:
    """Ids and bits of each row's ``width`` best tokens, ``[rows, width]``, the best one last.

    They stand in the ``width`` blocks with the best maxima, so most of the vocabulary is looked at only once: this takes
    a fifth of the time of a partition on a CPU, and spares a GPU the sort that its partition is.
    """
    rows = len(scores)
    blocks = _blocks(scores, _RANK_BLOCK_TOKENS, -math.inf)
    maxima = blocks.max(axis=-1)
    chosen = _last(maxima, min(width, maxima.shape[-1]))
    candidates = blocks[mx.arange(rows)[:, None], chosen].reshape(rows, -1)
    ids = (chosen[..., None] * _RANK_BLOCK_TOKENS + mx.arange(_RANK_BLOCK_TOKENS)).reshape(rows, -1)
    best = _last(candidates, width)
    values = mx.take_along_axis(candidates, best, axis=-1)
    order = mx.argsort(values, axis=-1)
    return (
        mx.take_along_axis(mx.take_along_axis(ids, best, axis=-1), order, axis=-1),
        mx.take_along_axis(values, order, axis=-1),
    )


def ranked_floor(scores: mx.array, width: int, top_k: mx.array, top_p: mx.array | None) -> mx.array:
    """The bits of the last token that each row's ``top_k`` (``[rows, 1]``, at most ``width``) and ``top_p`` keep."""
    _, ranked = likeliest(scores, width)
    beyond = mx.arange(width) < width - top_k
    if top_p is None:
        return _last_kept(ranked, beyond)
    total = weigh(scores).sum(axis=-1, keepdims=True)
    return _last_kept(ranked, beyond | (_weight_above(ranked) >= top_p * total))


def nucleus_floor(scores: mx.array, top_p: mx.array, tail: mx.array) -> mx.array:
    """The bits of the last token that ``top_p`` keeps, ``[rows, 1]``: those with less than ``top_p`` above them.

    ``tail`` is ``log2((1 - top_p) / vocabulary)``: tokens with a smaller share than ``2 ** tail`` weigh less than
    ``1 - top_p`` in all, so none of them is kept. Nor is any beyond a few that weigh ``top_p`` together. What cannot be
    kept sorts as equals, and a sort that has little to do takes a sixth of the time on a CPU.
    """
    total = weigh(scores).sum(axis=-1, keepdims=True)
    _, few = likeliest(scores, min(_FEW_TOKENS, scores.shape[-1]))
    enough = weigh(few).sum(axis=-1, keepdims=True) >= top_p * total
    floor = mx.where(enough, few[:, :1], mx.log2(total) + tail)
    ranked = mx.sort(mx.where(scores >= floor, scores, -math.inf), axis=-1)
    return _last_kept(ranked, _weight_above(ranked) >= top_p * total)


def _last(values: mx.array, width: int) -> mx.array:
    """The places of each row's ``width`` greatest values, in any order."""
    return mx.argpartition(values, -width, axis=-1)[:, -width:]


def _weight_above(ranked: mx.array) -> mx.array:
    return mx.cumsum(weigh(ranked), axis=-1, reverse=True, inclusive=False)


def _last_kept(ranked: mx.array, dropped: mx.array) -> mx.array:
    return mx.take_along_axis(ranked, dropped.sum(axis=-1, keepdims=True), axis=-1)


def draw(weights: mx.array, exponentials: mx.array) -> mx.array:
    """One token for each row, ``[rows]``, with probabilities in proportion to ``weights``.

    A race: what has the weight w arrives after an exponentially distributed time of the rate w, and is the first with a
    probability in proportion to w. Blocks of tokens race first, then the tokens of the block that won, so a row needs
    :func:`numbers_for` random numbers, ``exponentials`` of the rate 1, and not one for each token. No running sum is
    compared with anything, so no token is too unlikely to be drawn, and a row's draw does not depend on how many there are.
    """
    blocks = _blocks(weights, BLOCK_TOKENS, 0.0)
    count = blocks.shape[1]
    block = mx.argmax(blocks.sum(axis=-1) / exponentials[:, :count], axis=-1)
    inside = mx.argmax(blocks[mx.arange(len(weights)), block] / exponentials[:, count:], axis=-1)
    return block * BLOCK_TOKENS + inside


def _blocks(array: mx.array, tokens: int, filler: float) -> mx.array:
    """``[rows, vocabulary]`` as ``[rows, blocks, tokens]``, the last block filled up."""
    rows, vocabulary = array.shape
    if vocabulary % tokens:
        array = mx.pad(array, [(0, 0), (0, -vocabulary % tokens)], constant_values=mx.array(filler))
    return array.reshape(rows, -1, tokens)


def numbers_for(vocabulary: int) -> int:
    """Return how many random numbers a draw from so many tokens takes."""
    return -(-vocabulary // BLOCK_TOKENS) + BLOCK_TOKENS


def random_words(seed: int, position: int, count: int) -> npt.NDArray[np.uint32]:
    """So many numbers of 32 bits that depend on seed and position alone, on every machine."""
    return np.frombuffer(hashlib.shake_128(f"{seed}:{position}".encode()).digest(4 * count), "<u4")


def exponentials_of(words: npt.NDArray[np.uint32]) -> npt.NDArray[np.float32]:
    """Exponentially distributed numbers of the rate 1 (their mean is 1), never 0, out of uniform ones."""
    numbers: npt.NDArray[np.float32] = -np.log1p((words + 0.5) * -(2.0**-WORD_BITS)).astype(np.float32)
    return numbers


def penalise_counts(logits: mx.array, counts: mx.array, presence: mx.array, frequency: mx.array) -> mx.array:
    """OpenAI's penalties for how often a row generated each token: ``logit - count * frequency - [count > 0] * presence``."""
    return logits - counts * frequency - (counts > 0) * presence


def penalise_repeats(logits: mx.array, repeated: mx.array, penalty: mx.array) -> mx.array:
    """Divide a repeated token's logit by ``penalty``, or multiply it if it is negative (arXiv:1909.05858)."""
    return mx.where(repeated, mx.where(logits < 0, logits * penalty, logits / penalty), logits)

"""Pools the vectors of a text's tokens into one vector, as the model's files ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.engine.embedding.embedder import Row
    from tasks.models.embedding import Pooling


def pool(hidden: mx.array, rows: Sequence[Row], modes: Sequence[Pooling]) -> mx.array:
    """One vector for each row, ``[rows, width]``; the results of several modes stand behind each other.

    Args:
        hidden: the tokens' vectors, ``[rows, tokens, width]``, padded behind each row's tokens.
        rows: the rows, each with at least one token that is pooled.
        modes: how.
    """
    places = mx.arange(hidden.shape[1])[None]
    ends = mx.array([len(row.ids) for row in rows])[:, None]
    begins = mx.array([row.prompt_tokens for row in rows])[:, None]
    mask = ((places >= begins) & (places < ends))[..., None]
    return mx.concatenate([_pooled(hidden, mask, ends, mode) for mode in modes], axis=-1)


def _pooled(hidden: mx.array, mask: mx.array, ends: mx.array, mode: Pooling) -> mx.array:
    if mode == "cls":
        return hidden[:, 0]
    if mode == "lasttoken":
        return mx.take_along_axis(hidden, ends[..., None] - 1, axis=1)[:, 0]
    if mode == "max":
        return mx.where(mask, hidden, -mx.inf).max(axis=1)
    weights = mask.astype(hidden.dtype)
    if mode == "weightedmean":
        weights = weights * mx.arange(1, hidden.shape[1] + 1)[None, :, None]
    total, count = (hidden * weights).sum(axis=1), weights.sum(axis=1)
    return total / (mx.sqrt(count) if mode == "mean_sqrt_len_tokens" else count)

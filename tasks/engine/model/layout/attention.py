"""Attention on numpy: of a few tokens, and of prompts."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from mlx_lm.models.base import scaled_dot_product_attention

if TYPE_CHECKING:
    import numpy.typing as npt

    from tasks.engine.model.layout.threads import HostThreads

#: The tokens of a prompt whose scores are computed together. Fewer make slow products; more compute more scores that no token
#: sees, and leave the core's second cache.
BLOCK_TOKENS = 32
#: Keys of fewer bytes are not shared out: to wait for another thread takes longer.
SHARED_BYTES = 2 << 20
_LOWEST = np.finfo(np.float32).min


def attend(queries: Any, keys: Any, values: Any, cache: Any, scale: float, mask: Any, sinks: Any = None) -> Any:
    """mlx-lm's function of this name, and the same for numpy's arrays.

    Raises:
        TypeError: numpy's arrays came with sinks, of which nothing is known here.
    """
    if not isinstance(queries, np.ndarray):
        return scaled_dot_product_attention(queries, keys, values, cache=cache, scale=scale, mask=mask, sinks=sinks)
    if sinks is not None:
        raise TypeError("attention with sinks on numpy's arrays")
    call = getattr(cache, "call", None)
    if call is None:
        return _attend(queries, keys, values, scale, mask)
    if isinstance(mask, str):
        return attend_causally(queries, keys, values, scale, call.offsets, call.threads)
    slots = len(keys)
    attended = np.empty((*queries.shape[:-1], values.shape[-1]), np.float32)

    def compute(start: int, end: int) -> None:
        rows = slice(start, end)
        seen = None if mask is None else mask[rows]
        attended[rows] = _attend(queries[rows], keys[rows], values[rows], scale, seen)

    if call.threads is None or keys.nbytes < SHARED_BYTES:
        compute(0, slots)
    else:
        call.threads.share(compute, slots)
    for slot, inputs in call.further.items():
        attended[inputs] = _attend_at_one_slot(queries[inputs], keys[slot], values[slot], scale, mask[inputs])
    return attended


def attend_causally(
    queries: npt.NDArray[np.float32],
    keys: npt.NDArray[np.float32],
    values: npt.NDArray[np.float32],
    scale: float,
    offsets: npt.NDArray[np.int32],
    threads: HostThreads | None = None,
) -> npt.NDArray[np.float32]:
    """Attend from each token to the keys up to its own, in blocks of tokens that leave out keys that none of them sees.

    Args:
        queries: ``[rows, heads, count, width]``.
        keys: ``[rows, groups, tokens, width]``, and values.
        values: as keys.
        scale: of the scores.
        offsets: the position of each row's first token, ``[rows]``.
        threads: share the blocks out.
    """
    rows, heads, count, _ = queries.shape
    attended = np.empty((rows, count, heads, values.shape[-1]), np.float32)
    blocks = [
        (row, offset, start, end)
        for row, offset in enumerate(offsets.tolist())
        for start, end in pairwise([*range(0, count, BLOCK_TOKENS), count])
    ]
    blocks.sort(key=lambda block: block[1] + block[3], reverse=True)  # the longest first: so threads end together

    def compute(first: int, last: int) -> None:
        for row, offset, start, end in blocks[first:last]:
            seen = slice(None, offset + end)
            attended[row, start:end] = _attend_to_block(
                queries[row, :, start:end], keys[row, :, seen], values[row, :, seen], scale
            )

    if threads is None:
        compute(0, len(blocks))
    else:
        threads.share(compute, len(blocks), len(blocks))
    return attended.transpose(0, 2, 1, 3)


def _attend_to_block(
    queries: npt.NDArray[np.float32], keys: npt.NDArray[np.float32], values: npt.NDArray[np.float32], scale: float
) -> npt.NDArray[np.float32]:
    """Return ``[tokens, heads, width]`` for a block of tokens, to which the last ones of these keys belong."""
    heads, count, width = queries.shape
    groups, tokens, _ = keys.shape
    scores = np.matmul(
        np.multiply(queries, np.float32(scale), order="C").reshape(groups, -1, width), keys.swapaxes(1, 2)
    )
    own = scores.reshape(groups, -1, count, tokens)[..., -count:]
    np.copyto(own, _LOWEST, where=~np.tri(count, dtype=np.bool_))
    scores -= scores.max(-1, keepdims=True)
    np.exp(scores, out=scores)
    attended: npt.NDArray[np.float32] = np.matmul(scores, values)
    attended /= scores.sum(-1, keepdims=True)
    return attended.reshape(heads, count, -1).swapaxes(0, 1)


def _attend_at_one_slot(
    queries: npt.NDArray[np.float32],
    keys: npt.NDArray[np.float32],
    values: npt.NDArray[np.float32],
    scale: float,
    mask: npt.NDArray[np.bool_],
) -> npt.NDArray[np.float32]:
    """Of several inputs with one token each that look at the same keys, ``[groups, tokens, width]``."""
    together = queries.transpose(2, 1, 0, 3)
    return _attend(together, keys[None], values[None], scale, mask.transpose(2, 1, 0, 3)).transpose(2, 1, 0, 3)


def _attend(
    queries: npt.NDArray[np.float32],
    keys: npt.NDArray[np.float32],
    values: npt.NDArray[np.float32],
    scale: float,
    mask: npt.NDArray[np.bool_] | None,
) -> npt.NDArray[np.float32]:
    rows, heads, count, width = queries.shape
    groups = keys.shape[1]
    grouped = queries.reshape(rows, groups, -1, width).swapaxes(-1, -2)  # those that share their keys
    # With the keys on the left the BLAS reads them as they lie: a fifth of the time at 1,000 tokens.
    products = np.matmul(keys, np.multiply(grouped, np.float32(scale), order="C"))
    scores = np.ascontiguousarray(products.swapaxes(-1, -2))
    if mask is not None:
        several = scores.reshape(rows, groups, heads // groups, count, -1)
        np.copyto(several, _LOWEST, where=~mask[:, :, None])
    scores -= scores.max(-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(-1, keepdims=True)
    attended: npt.NDArray[np.float32] = np.matmul(scores, values).reshape(rows, heads, count, -1)
    return attended

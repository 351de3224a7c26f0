"""Attention on numpy, for a few tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from mlx_lm.models.base import scaled_dot_product_attention

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

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
    if call is not None and call.further:
        return _attend_further(queries, keys, values, scale, mask, call.further)
    return _attend(queries, keys, values, scale, mask)


def _attend_further(
    queries: npt.NDArray[np.float32],
    keys: npt.NDArray[np.float32],
    values: npt.NDArray[np.float32],
    scale: float,
    mask: npt.NDArray[np.bool_],
    further: Mapping[int, list[int]],
) -> npt.NDArray[np.float32]:
    """Of inputs with one token each: the first look at a slot each, and ``further`` ones at slots that others look at, too."""
    slots = len(keys)
    attended = np.empty((*queries.shape[:-1], values.shape[-1]), np.float32)
    attended[:slots] = _attend(queries[:slots], keys, values, scale, mask[:slots])
    for slot, inputs in further.items():
        together = queries[inputs].transpose(2, 1, 0, 3)
        of_slot = slice(slot, slot + 1)
        found = _attend(together, keys[of_slot], values[of_slot], scale, mask[inputs].transpose(2, 1, 0, 3))
        attended[inputs] = found.transpose(2, 1, 0, 3)
    return attended


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

"""Rotary positions on numpy, by tables: MLX's CPU build computes sines and cosines again in each layer of each step."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

#: The number of positions by which tables grow.
GROW_POSITIONS = 256


class Rotation:
    """Rotates as one of mlx-lm's modules does, whatever its frequencies are: the tables are what it makes of two probes.

    A rotated number is a sum of itself and of its partner in the pair, each times a number that follows from place and position.

    Args:
        rope: what the module computes of MLX's arrays.
        dims: so many of a head's first numbers are rotated.
        traditional: whether pairs lie side by side, and not half of ``dims`` apart.
    """

    def __init__(self, rope: Callable[..., mx.array], dims: int, *, traditional: bool) -> None:
        self._rope = rope
        self._dims = dims
        self._traditional = traditional
        self._table = np.empty((0, 2, 0), np.float32)
        self._offsets: npt.NDArray[np.int32] | None = None
        self._chosen = (self._table, self._table)

    def __call__(self, x: npt.NDArray[np.float32], offsets: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """``x``, ``[rows, heads, count, width]``, whose first tokens are at these positions, ``[rows]``."""
        count = x.shape[2]
        if offsets is not self._offsets:  # all layers of a step have the same ones
            positions = offsets[:, None] + np.arange(count)
            self._grow(int(positions.max()) + 1, x.shape[3])
            table = self._table[positions][:, None]
            self._chosen, self._offsets = (table[..., 0, :], table[..., 1, :]), offsets
        own, other = self._chosen
        rotated = np.empty_like(x)
        for places, partners in self._partners:
            rotated[..., places] = x[..., partners]
        rotated *= other
        rotated += x * own
        return rotated

    def _grow(self, positions: int, width: int) -> None:
        """Have tables for so many positions, and for heads of this width."""
        if self._table.shape[2] != width:
            self._table = np.empty((0, 2, width), np.float32)
            self._partners, self._is_first = _pairs(width, self._dims, traditional=self._traditional)
        while len(self._table) < positions:
            probes = np.stack([self._is_first, ~self._is_first]).astype(np.float32)
            given = mx.array(np.broadcast_to(probes[None, :, None], (1, 2, GROW_POSITIONS, width)))
            firsts, seconds = np.asarray(self._rope(given, offset=len(self._table)))[0]
            own, other = np.where(self._is_first, firsts, seconds), np.where(self._is_first, seconds, firsts)
            self._table = np.concatenate([self._table, np.stack([own, other], axis=1)])


def _pairs(width: int, dims: int, *, traditional: bool) -> tuple[list[tuple[slice, slice]], npt.NDArray[np.bool_]]:
    """Return places and their partners', and whether each place is the first of its pair; one beyond ``dims`` is alone."""
    firsts, seconds = (
        (slice(0, dims, 2), slice(1, dims, 2)) if traditional else (slice(dims // 2), slice(dims // 2, dims))
    )
    alone = slice(dims, width)
    is_first = np.zeros(width, np.bool_)
    is_first[firsts] = is_first[alone] = True
    return [(firsts, seconds), (seconds, firsts), (alone, alone)][: 2 + (width > dims)], is_first

"""Some rows of a batch, for which the same has to be computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import mlx.core as mx

from tasks.engine.sampling.row import stack

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.engine.sampling.row import Row


class Part:
    """Some rows of a batch, at ``places``; ``of`` takes them out of an array over the whole batch, ``into`` puts them back."""

    def __init__(self, rows: list[Row], chosen: list[int]) -> None:
        self.rows = [rows[index] for index in chosen]
        self.places = chosen
        self.is_all = len(chosen) == len(rows)
        self._index = mx.array(chosen)

    @classmethod
    def where(cls, rows: list[Row]) -> Self | None:
        """The rows that belong to such a part, or ``None``: then there is nothing to compute."""
        chosen = [index for index, row in enumerate(rows) if cls.takes(row)]
        return cls(rows, chosen) if chosen else None

    @staticmethod
    def takes(row: Row) -> bool:
        """Whether a row belongs to such a part."""
        raise NotImplementedError

    def of(self, array: mx.array) -> mx.array:
        """Return the part of an array over the whole batch that belongs to these rows."""
        return array if self.is_all else array[self._index]

    def into(self, array: mx.array, part: mx.array) -> mx.array:
        """The array over the whole batch with this in the place of these rows."""
        if self.is_all:
            return part
        changed = mx.array(array)
        changed[self._index] = part
        return changed

    def column(self, number: Callable[[Row], float]) -> mx.array:
        """A number for each of these rows, ``[rows, 1]``."""
        return mx.array([[number(row)] for row in self.rows], dtype=mx.float32)

    def latest(self) -> mx.array:
        """The token that each row drew last, ``[rows]``."""
        return stack([row.latest for row in self.rows])

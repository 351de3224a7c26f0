"""Rows whose token is drawn, and which tokens it is drawn from."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np

from tasks.engine.sampling import drawing
from tasks.engine.sampling.part import Part

if TYPE_CHECKING:
    from random import Random

    from tasks.engine.sampling.row import Row

#: The inverse of the highest one: 0 in single precision would make infinitely unlikely tokens undefined.
LOWEST_SHARPNESS = 1e-30


class Drawing(Part):
    """Rows whose token is drawn; those of them that are ranked or a nucleus have a floor beside that of ``min_p``."""

    def __init__(self, rows: list[Row], chosen: list[int]) -> None:
        super().__init__(rows, chosen)
        self._sharpness = self.column(lambda row: max(1 / row.sampling.temperature, LOWEST_SHARPNESS))
        self._min_bits = self.column(lambda row: math.log2(row.sampling.min_p) if row.sampling.min_p else -math.inf)
        self._ranked = Ranked.where(self.rows)
        self._nucleus = Nucleus.where(self.rows)
        self._is_cut = bool(self._ranked or self._nucleus or any(row.sampling.min_p for row in self.rows))

    @staticmethod
    def takes(row: Row) -> bool:
        """See :class:`Part`."""
        return row.is_random

    def draw(self, logits: mx.array, best: mx.array, entropy: Random) -> mx.array:
        """The tokens of the whole batch, ``[rows]``: ``best`` for the rows that are not drawn."""
        scores = drawing.bits(self.of(logits), self.of(best))
        if self._is_cut:
            scores = mx.where(scores >= self._floor(scores), scores, -math.inf)
        words = np.stack([row.random_words(entropy) for row in self.rows])
        exponentials = mx.array(drawing.exponentials_of(words))
        return self.into(best, drawing.draw(drawing.weigh(scores * self._sharpness), exponentials))

    def _floor(self, scores: mx.array) -> mx.array:
        floor = self._min_bits
        for part in (self._ranked, self._nucleus):
            if part is not None:
                floor = part.into(floor, mx.maximum(part.of(floor), part.floor(part.of(scores))))
        return floor


class Ranked(Part):
    """Rows with ``top_k``, and perhaps ``top_p`` within it."""

    def __init__(self, rows: list[Row], chosen: list[int]) -> None:
        super().__init__(rows, chosen)
        self._width = max(row.sampling.top_k for row in self.rows)
        self._top_k = self.column(lambda row: row.sampling.top_k)
        self._top_p = None
        if any(row.sampling.top_p < 1 for row in self.rows):
            self._top_p = self.column(lambda row: row.sampling.top_p if row.sampling.top_p < 1 else math.inf)

    @staticmethod
    def takes(row: Row) -> bool:
        """See :class:`Part`."""
        return row.is_ranked

    def floor(self, scores: mx.array) -> mx.array:
        """The least score that a token may have, for each of these rows, ``[rows, 1]``."""
        return drawing.ranked_floor(scores, self._width, self._top_k, self._top_p)


class Nucleus(Part):
    """Rows with ``top_p`` over the whole vocabulary."""

    def __init__(self, rows: list[Row], chosen: list[int]) -> None:
        super().__init__(rows, chosen)
        self._top_p = self.column(lambda row: row.sampling.top_p)
        self._tail = self.column(lambda row: math.log2((1 - row.sampling.top_p) / row.vocabulary))

    @staticmethod
    def takes(row: Row) -> bool:
        """See :class:`Part`."""
        return row.is_nucleus

    def floor(self, scores: mx.array) -> mx.array:
        """The least score that a token may have, for each of these rows, ``[rows, 1]``."""
        return drawing.nucleus_floor(scores, self._top_p, self._tail)

"""Rows along a draft: the state of a row before each token that it is expected to draw, so that one step draws all of them."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tasks.engine.generation.runner import Draw
    from tasks.engine.sampling.row import Row


def places(counts: list[int]) -> list[tuple[int, int]]:
    """Row and number of each token of a step with ``counts[i]`` tokens for row i: all first ones, all second ones, and so on."""
    return [(row, depth) for depth in range(max(counts)) for row, count in enumerate(counts) if depth < count]


@dataclass(slots=True, frozen=True)
class Chain:
    """``rows[i]`` is a row that has drawn the first i tokens of ``draft``."""

    rows: list[Row]
    draft: Sequence[int]

    @classmethod
    def of(cls, row: Row, draft: Sequence[int]) -> Chain:
        """A row and its copies; ``row`` has to be one that may be drafted for."""
        rows = [row]
        for token in draft:
            after = copy(rows[-1])
            after.position += 1
            if after.matcher is not None:
                after.matcher = after.matcher.after(token)
            rows.append(after)
        return cls(rows, draft)

    def accept(self, draws: Sequence[Draw]) -> tuple[Row, list[Draw]]:
        """Return which of the tokens drawn along its draft the row takes, and the row after them.

        A token counts where all before it are those of the draft: then it was drawn from what the row would have drawn from
        without a draft, by the same random numbers. So the first token that is another one counts, and none after it.
        """
        counted = list(self._counted(draws))
        return self.rows[len(counted) - 1], counted

    def _counted(self, draws: Sequence[Draw]) -> Iterator[Draw]:
        for row, expected, drawn in zip(self.rows, (*self.draft, None), draws, strict=True):
            draw = row.advanced(drawn)
            yield draw
            if draw.token != expected or not draw.sound or draw.complete or draw.fault:
                return

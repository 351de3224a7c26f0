"""Adjusts logits before a token is chosen: bias, penalties and grammars."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np

from tasks.engine.sampling import drawing
from tasks.engine.sampling.part import Part
from tasks.engine.sampling.row import Entry, stack

if TYPE_CHECKING:
    import numpy.typing as npt

    from tasks.engine.sampling.row import Row

#: The bound on a repetition penalty: a stronger one changes nothing but that logits overflow.
MOST_REPETITION_PENALTY = 1e6


class Biased(Part):
    """Rows with ``logit_bias``, or with barred tokens."""

    def __init__(self, rows: list[Row], chosen: list[int]) -> None:
        super().__init__(rows, chosen)
        biases = [(n, *bias) for n, row in enumerate(self.rows) for bias in row.bias.items()]
        places, ids, values = zip(*biases, strict=True)
        self._at = [chosen[place] for place in places], list(ids)
        self._added = np.array(values, np.float32)
        self._places = mx.array(places)
        self._ids = mx.array(ids)
        self._values = mx.array(values, dtype=mx.float32)

    @staticmethod
    def takes(row: Row) -> bool:
        """See :class:`Part`."""
        return bool(row.bias)

    def adjust(self, logits: mx.array) -> mx.array:
        """These rows\' logits, changed, ``[rows, vocabulary]``."""
        return logits.at[self._places, self._ids].add(self._values)

    def adjust_on_host(self, logits: npt.NDArray[np.float32]) -> None:
        """Change these rows of numpy's logits, which are those of the whole batch, in place."""
        logits[self._at] += self._added


class Repeating(Part):
    """Rows with a repetition penalty."""

    def __init__(self, rows: list[Row], chosen: list[int]) -> None:
        super().__init__(rows, chosen)
        self._penalty = self.column(
            lambda row: min(max(row.sampling.repetition_penalty, 1 / MOST_REPETITION_PENALTY), MOST_REPETITION_PENALTY)
        )

    @staticmethod
    def takes(row: Row) -> bool:
        """See :class:`Part`."""
        return row.seen is not None

    def adjust(self, logits: mx.array) -> mx.array:
        """These rows\' logits, changed, ``[rows, vocabulary]``."""
        places = self.column(lambda row: row.context_tokens if row.has_drawn else 0)[:, 0]
        seen = stack([row.seen for row in self.rows if row.seen])
        seen = seen.at[mx.arange(len(self.rows)), self.latest()].maximum(places)
        for index, row in enumerate(self.rows):
            row.seen = Entry(seen, index)
        before = self.column(lambda row: max(0, row.context_tokens - row.sampling.repetition_context_size))
        return drawing.penalise_repeats(logits, seen > before, self._penalty)


class Counted(Part):
    """Rows with a presence or frequency penalty."""

    def __init__(self, rows: list[Row], chosen: list[int]) -> None:
        super().__init__(rows, chosen)
        self._presence = self.column(lambda row: row.sampling.presence_penalty)
        self._frequency = self.column(lambda row: row.sampling.frequency_penalty)

    @staticmethod
    def takes(row: Row) -> bool:
        """See :class:`Part`."""
        return row.counts is not None

    def adjust(self, logits: mx.array) -> mx.array:
        """These rows\' logits, changed, ``[rows, vocabulary]``."""
        more = self.column(lambda row: row.has_drawn)[:, 0]
        counts = stack([row.counts for row in self.rows if row.counts])
        counts = counts.at[mx.arange(len(self.rows)), self.latest()].add(more)
        for index, row in enumerate(self.rows):
            row.counts = Entry(counts, index)
        return drawing.penalise_counts(logits, counts, self._presence, self._frequency)


class Constrained(Part):
    """Rows with a grammar."""

    def __init__(self, rows: list[Row], chosen: list[int]) -> None:
        super().__init__(rows, chosen)
        self.matchers = [row.matcher for row in self.rows if row.matcher is not None]

    @staticmethod
    def takes(row: Row) -> bool:
        """See :class:`Part`."""
        return row.matcher is not None

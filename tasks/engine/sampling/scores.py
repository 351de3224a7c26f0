"""Log-probabilities, for the rows that ask for them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import mlx.core as mx

from tasks.engine.sampling import drawing
from tasks.engine.sampling.part import Part
from tasks.messages.engine import TokenLogprob

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tasks.engine.sampling.row import Row

#: OpenAI's figure for a token that cannot come. JSON has no infinity.
LOWEST_LOGPROB = -9999.0


@dataclass(slots=True, frozen=True)
class Scores:
    """Ids and natural log-probabilities, ``[rows, 1 + most alternatives]``: the drawn token, then the likeliest ones.

    ``places`` are those of the rows in the step. Of a ``constrained`` row only tokens that its grammar allows are named.
    """

    places: list[int]
    alternatives: list[int]
    constrained: list[bool]
    ids: mx.array
    values: mx.array
    text: Callable[[int], str]

    def read(self) -> Iterator[tuple[int, TokenLogprob]]:
        """Yield the log-probabilities that each row asked for, by its place; waits for the device."""
        ids = cast("list[list[int]]", self.ids.tolist())
        values = cast("list[list[float]]", self.values.tolist())
        for place, count, constrained, row, scores in zip(
            self.places, self.alternatives, self.constrained, ids, values, strict=True
        ):
            known = sum(score > -math.inf for score in scores) if constrained else len(scores)
            finite = [max(score, LOWEST_LOGPROB) for score in scores[: min(1 + count, known)]]
            (token_id, logprob), *likeliest = zip(row[: len(finite)], finite, strict=True)
            top = tuple((likely, self.text(likely), score) for likely, score in likeliest)
            yield place, TokenLogprob(token_id, self.text(token_id), logprob, top)


class Asking(Part):
    """Rows that asked for log-probabilities."""

    def __init__(self, rows: list[Row], chosen: list[int]) -> None:
        super().__init__(rows, chosen)
        self._alternatives = [row.sampling.top_logprobs for row in self.rows]
        self._most = min(max(self._alternatives), self.rows[0].vocabulary)

    @staticmethod
    def takes(row: Row) -> bool:
        """See :class:`Part`."""
        return row.sampling.logprobs

    def score(self, logits: mx.array, best: mx.array, tokens: mx.array, text: Callable[[int], str]) -> Scores:
        """The log-probabilities of the drawn tokens and of the likeliest ones; ``text`` names a token."""
        scores = drawing.bits(self.of(logits), self.of(best))
        total = drawing.weigh(scores).sum(axis=-1, keepdims=True)
        ids = self.of(tokens)[:, None]
        values = mx.take_along_axis(scores, ids, axis=-1)
        if self._most:
            likeliest = drawing.likeliest(scores, self._most)
            ids, values = (
                mx.concatenate([a, b[:, ::-1]], axis=-1) for a, b in zip((ids, values), likeliest, strict=True)
            )
        constrained = [row.matcher is not None for row in self.rows]
        return Scores(self.places, self._alternatives, constrained, ids, drawing.logprobs(values, total), text)

"""Drafts: tokens that rows probably draw next, for steps that check several tokens of a row at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.engine.model.drafting.delay import Delay

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlx.nn.layers.base import Module

    from tasks.engine.model.batching.rows import Row
    from tasks.engine.model.drafting.worth import Worth
    from tasks.engine.sampling.sampler import BatchSampler

#: The longest drafts. A step grows with each of its tokens, and a draft may end early.
MOST_EXPECTED, MOST_COPIED = 16, 8
#: The most tokens of one step, over all rows, with drafts.
MOST_STEP_TOKENS = 64
#: Beside rows that are not drafted for, the drafts of a step have so many tokens, or one for so many rows.
FEW_TOKENS, ROWS_PER_TOKEN = 4, 4
#: With more rows, no repetition is looked for: a full batch pays for each token of a draft.
MOST_COPYING = 2
#: After so many equal tokens the earlier continuation is expected; so far back it is looked for.
COPIED_AFTER = (3, 2)
LOOK_BACK_TOKENS = 4096


class Drafts:
    """Drafts for the rows of a batch: tokens that their grammars lead to, and for a few rows those that followed before.

    Args:
        sampler: knows the rows' grammars.
        make_worth: makes the judge of one kind of draft.
        step_tokens: the most tokens of one step, over all rows.
    """

    def __init__(
        self, sampler: BatchSampler, make_worth: Callable[[], Worth], step_tokens: int = MOST_STEP_TOKENS
    ) -> None:
        self._sampler = sampler
        self._step_tokens = step_tokens
        self._expected, self._copied = make_worth(), make_worth()
        self._delay = Delay()
        self._judge: Worth | None = None

    def propose(self, rows: list[Row]) -> list[list[int]]:
        """Return a draft for each row; most are empty. With the token after it none is longer than the rest of its row."""
        drafts, self._judge = self._expect_all(rows), self._expected
        if len(rows) <= MOST_COPYING and not any(drafts) and self._copied.pays:
            drafts, self._judge = [self._copy(row) for row in rows], self._copied
        if not any(drafts):
            self._judge = None
        return drafts

    def stepped(self, rows: int, tokens: int, seconds: float) -> None:
        """The step with the last drafts brought so many tokens for so many rows."""
        if self._judge is None:
            self._delay.pay(seconds)
            for worth in (self._expected, self._copied):
                worth.stepped(rows, tokens, seconds, drafted=False)
            return
        plain_s = self._judge.plain_s(rows)
        self._judge.stepped(rows, tokens, seconds, drafted=True)
        if plain_s is not None:
            self._delay.owe(seconds, plain_s)

    def _expect_all(self, rows: list[Row]) -> list[list[int]]:
        left = self._left(rows) if self._expected.pays else 0
        drafts = []
        for row in rows:
            most = _room(row, min(MOST_EXPECTED, left))
            drafts.append(self._sampler.expected(row.uid, most) if most else [])
            left -= len(drafts[-1])
        return drafts

    def _left(self, rows: list[Row]) -> int:
        """The most tokens of this step's drafts, over all rows."""
        left = max(0, self._step_tokens - len(rows))
        if all(self._sampler.is_led(row.uid) for row in rows):
            return left
        # The time of a step without drafts has to be known, to tell their cost.
        may = self._delay.is_paid and self._expected.plain_s(len(rows)) is not None
        return min(left, max(FEW_TOKENS, len(rows) // ROWS_PER_TOKEN)) if may else 0

    def _copy(self, row: Row) -> list[int]:
        return self._sampler.allowed(row.uid, continued(row.tokens)[: _room(row, MOST_COPIED)])


def bound_step(model: Module) -> int:
    """The most tokens of a step with drafts. Where numpy computes short steps it copies nothing for a draft, and MLX does."""
    return getattr(model, "host_tokens", 0) or MOST_STEP_TOKENS


def _room(row: Row, most: int) -> int:
    return max(0, min(most, row.left - 1))


def continued(tokens: list[int]) -> list[int]:
    """Return the tokens that followed the last few of these earlier: at the last such place, of as many as can be found."""
    for size in COPIED_AFTER:
        tail = tokens[-size:]
        for end in range(len(tokens) - 1, max(size, len(tokens) - LOOK_BACK_TOKENS) - 1, -1):
            if tokens[end - 1] == tail[-1] and tokens[end - size : end] == tail:
                return tokens[end : end + MOST_COPIED]
    return []

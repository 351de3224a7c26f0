"""What rows may draw next, for steps that check several tokens of a row at once."""

from __future__ import annotations

from collections import deque
from statistics import fmean, median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlx.nn.layers.base import Module

    from tasks.engine.model.rows import Row
    from tasks.engine.sampling.sampler import BatchSampler

#: The longest drafts. A step grows with each of its tokens, and a draft may end early.
MOST_FORCED, MOST_COPIED = 16, 8
#: The most tokens of one step, over all rows, with drafts.
MOST_STEP_TOKENS = 64
#: While more rows run, what repeats itself is not looked for: a full batch pays for each token of a draft.
MOST_COPYING = 2
#: So many equal tokens are followed by what followed before; how far back is looked.
COPIED_AFTER = (3, 2)
LOOK_BACK_TOKENS = 4096
#: So many of the latest steps with drafts are compared with those without: with the median of a few of as many rows, or of
#: one more or less in so many.
WINDOW_STEPS, PLAIN_STEPS, ALIKE_ROWS = 16, 5, 8
#: While drafts pay, one step of so many goes without, which says what one without costs now.
PLAIN_EVERY = 32
#: Where drafts do not pay, so many steps go without before they are tried again: more each time, up to a bound.
PAUSE_STEPS, MOST_PAUSE_STEPS = 64, 1024


class Worth:
    """Whether drafts pay here, by what recent steps took: rows go on more quickly with them than as many rows without."""

    def __init__(self) -> None:
        self._plain_s: dict[int, deque[float]] = {}
        self._gains: deque[float] = deque(maxlen=WINDOW_STEPS)
        self._since_plain = 0
        self._pause = 0
        self._next_pause = PAUSE_STEPS

    @property
    def pays(self) -> bool:
        """Whether the next step should have drafts."""
        return not self._pause and self._since_plain < PLAIN_EVERY

    def stepped(self, rows: int, tokens: int, seconds: float, *, drafted: bool) -> None:
        """A step of so many rows brought so many tokens."""
        self._since_plain = self._since_plain + 1 if drafted else 0
        if not drafted:
            self._plain_s.setdefault(rows, deque(maxlen=PLAIN_STEPS)).append(seconds)
        elif (plain_s := self._expected_s(rows)) is not None:
            self._gains.append(tokens / rows * plain_s / seconds)
        if self._pause:
            self._pause -= 1
        elif len(self._gains) == WINDOW_STEPS:
            if fmean(self._gains) < 1:
                self._pause, self._next_pause = self._next_pause, min(2 * self._next_pause, MOST_PAUSE_STEPS)
                self._gains.clear()
            else:
                self._next_pause = PAUSE_STEPS

    def _expected_s(self, rows: int) -> float | None:
        """What a step of so many rows takes without drafts; ``None`` where none of about as many was seen."""
        known = min(self._plain_s, key=lambda number: abs(number - rows), default=0)
        return median(self._plain_s[known]) if known and abs(known - rows) <= rows // ALIKE_ROWS else None


class Drafts:
    """Drafts for the rows of a batch: tokens that their grammars force, and for a few rows what followed before.

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
        self._forced, self._copied = make_worth(), make_worth()
        self._judge: Worth | None = None

    def propose(self, rows: list[Row]) -> list[list[int]]:
        """A draft for each row; most are empty. With the token after it none is longer than what is left of its row."""
        drafts, self._judge = self._force_all(rows), self._forced
        if len(rows) <= MOST_COPYING and not any(drafts) and self._copied.pays:
            drafts, self._judge = [self._copy(row) for row in rows], self._copied
        if not any(drafts):
            self._judge = None
        return drafts

    def stepped(self, rows: int, tokens: int, seconds: float) -> None:
        """The step with the last drafts brought so many tokens for so many rows."""
        if self._judge is not None:
            self._judge.stepped(rows, tokens, seconds, drafted=True)
            return
        for worth in (self._forced, self._copied):
            worth.stepped(rows, tokens, seconds, drafted=False)

    def _force_all(self, rows: list[Row]) -> list[list[int]]:
        if not self._forced.pays:
            return [[] for _ in rows]
        left = max(0, self._step_tokens - len(rows))
        drafts = []
        for row in rows:
            drafts.append(self._sampler.forced(row.uid)[: _room(row, min(MOST_FORCED, left))])
            left -= len(drafts[-1])
        return drafts

    def _copy(self, row: Row) -> list[int]:
        return self._sampler.allowed(row.uid, continued(row.tokens)[: _room(row, MOST_COPIED)])


def bound_step(model: Module) -> int:
    """The most tokens of a step with drafts. Where numpy computes short steps it copies nothing for a draft, and MLX does."""
    return getattr(model, "host_tokens", 0) or MOST_STEP_TOKENS


def _room(row: Row, most: int) -> int:
    return max(0, min(most, row.left - 1))


def continued(tokens: list[int]) -> list[int]:
    """What followed where the last few of these tokens stood before: the last such place, of as many tokens as can be found."""
    for size in COPIED_AFTER:
        tail = tokens[-size:]
        for end in range(len(tokens) - 1, max(size, len(tokens) - LOOK_BACK_TOKENS) - 1, -1):
            if tokens[end - 1] == tail[-1] and tokens[end - size : end] == tail:
                return tokens[end : end + MOST_COPIED]
    return []

"""Whether steps with drafts pay: by what recent steps took, with drafts and without."""

from __future__ import annotations

from collections import deque
from statistics import fmean, median

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
        self._without_s: dict[int, deque[float]] = {}
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
            self._without_s.setdefault(rows, deque(maxlen=PLAIN_STEPS)).append(seconds)
        elif (plain_s := self.plain_s(rows)) is not None:
            self._gains.append(tokens / rows * plain_s / seconds)
        if self._pause:
            self._pause -= 1
        elif len(self._gains) == WINDOW_STEPS:
            if fmean(self._gains) < 1:
                self._pause, self._next_pause = self._next_pause, min(2 * self._next_pause, MOST_PAUSE_STEPS)
                self._gains.clear()
            else:
                self._next_pause = PAUSE_STEPS

    def plain_s(self, rows: int) -> float | None:
        """Return the seconds of a step of so many rows without drafts; ``None`` where none of about as many was seen."""
        known = min(self._without_s, key=lambda number: abs(number - rows), default=0)
        return median(self._without_s[known]) if known and abs(known - rows) <= rows // ALIKE_ROWS else None

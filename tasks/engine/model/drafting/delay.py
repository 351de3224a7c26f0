"""The cost of drafts for the rows beside them that have none."""

from __future__ import annotations

#: So much longer the steps of a batch may become by the drafts of some of its rows, on average.
MOST_SHARE = 0.02


class Delay:
    """By how much steps with drafts were longer, less what steps without have made up for.

    A step is as long as its tokens are many, for each row in it. So a row without a grammar would wait for the drafts of others.
    """

    def __init__(self) -> None:
        self._owed_s = 0.0

    @property
    def is_paid(self) -> bool:
        """Whether the next step may have drafts."""
        return self._owed_s <= 0

    def owe(self, seconds: float, plain_s: float) -> None:
        """A step had drafts, and would have taken ``plain_s`` without. What takes longer than two of these has other causes."""
        self._owed_s += min(seconds, 2 * plain_s) - plain_s

    def pay(self, seconds: float) -> None:
        """A step had no drafts."""
        self._owed_s = max(0.0, self._owed_s - MOST_SHARE * seconds)

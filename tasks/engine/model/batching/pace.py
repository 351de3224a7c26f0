"""Bounds the prompt tokens of one step: as many as the running streams can wait for."""

from __future__ import annotations

#: While others decode, a prefill step takes about as long as this many decode steps; longer where more wait than decode.
PREFILL_STEPS = 5
#: While nobody decodes, a prefill step may be this many times as large.
IDLE_FACTOR = 4
#: Rows share a prefill step as long as each gets this number of its tokens.
ROW_TOKENS = 32
ROUND_TOKENS = 16
STRETCH = 1.25
#: Rows of a burst that are ready wait for the rest of it as long as that is so many times their own tokens, and in all so
#: many prefill steps, where the rest are as many rows; for a few last tokens, of any number of rows, always.
GATHER_FACTOR = 16
GATHER_STEPS = 16
LAST_SHARE = 0.25


class Pace:
    """What decode steps and prefill steps cost here, as running means: how many tokens each had, and seconds.

    A step costs reading all weights, whatever it computes, and then something for each token: a straight line through the
    two means. Taken as proportional, a small prefill step looks so dear that the next one is kept small as well.
    """

    def __init__(self) -> None:
        self._rows = 0.0
        self.step_s = 0.0
        self._tokens = 0.0
        self._prefill_s = 0.0

    def stepped(self, rows: int, seconds: float) -> None:
        """A decode step took so long."""
        self._rows, self.step_s = _mean(self._rows, rows), _mean(self.step_s, seconds)

    def prefilled(self, tokens: int, seconds: float, *, beside_a_step: bool) -> None:
        """A prefill step took so long, with a decode step ahead of it on the device or not."""
        seconds -= self.step_s if beside_a_step else 0.0
        if seconds > 0:
            self._tokens, self._prefill_s = _mean(self._tokens, tokens), _mean(self._prefill_s, seconds)

    def tokens(self, steps: float, most: int) -> int:
        """Prompt tokens that take about as long as so many decode steps: one row's share at least."""
        if not self._prefill_s or not self.step_s:
            return min(most, int(2 * ROW_TOKENS * steps / PREFILL_STEPS))
        return self.tokens_in(steps * self.step_s, most)

    def tokens_in(self, seconds: float, most: int) -> int:
        """Prompt tokens that take about so long: one row's share at least, and as many as may be where nothing was measured."""
        if not self._prefill_s:
            return most
        fixed_s, token_s = self._line()
        tokens = int((seconds - fixed_s) / token_s) // ROUND_TOKENS * ROUND_TOKENS
        return min(most, max(tokens, ROW_TOKENS))

    def _line(self) -> tuple[float, float]:
        """Seconds of a step without tokens, and of each token."""
        apart = self._tokens - self._rows
        slower_s = self._prefill_s - self.step_s
        if apart < ROUND_TOKENS or slower_s <= 0:
            return 0.0, self._prefill_s / self._tokens
        token_s = slower_s / apart
        return max(0.0, self.step_s - token_s * self._rows), token_s


def _mean(old: float, new: float) -> float:
    return new if not old else 0.75 * old + 0.25 * new


def plan(todo: list[int], target: int, most: int, *, equal: bool = False) -> list[int]:
    """How many tokens of each row one prefill step computes, for about ``target`` and never over ``most`` in all.

    Rows are padded to the longest, so they get equal shares. A share is stretched where that saves another step for a
    few last tokens, which costs as much as a whole one. With ``equal`` no row is padded: all get what the shortest has left.
    """
    share = max(1, target // len(todo))
    longest = max(todo)
    if longest <= STRETCH * share and longest * len(todo) <= most:
        share = longest
    if equal:
        share = min(share, *todo)
    return [min(share, left) for left in todo]


def worth_gathering(done_tokens: int, ready: int, todo: list[int], most_tokens: int) -> bool:
    """Whether rows whose prompts are complete (``ready`` rows of ``done_tokens``) wait for those with ``todo`` tokens left.

    Rows that begin together decode together: with a few ahead, each of their tokens waits for a prefill step of the others,
    and the others decode beside fewer rows in the end.
    """
    left = sum(todo)
    if not 0 < left <= most_tokens:
        return False
    return left <= LAST_SHARE * done_tokens or (len(todo) >= ready and left <= GATHER_FACTOR * done_tokens)

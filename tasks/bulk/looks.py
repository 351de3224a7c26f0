"""The pace at which a bulk job looks for results."""

from __future__ import annotations

#: The bounds of the pause between two looks.
LEAST_S, LONGEST_S = 0.01, 0.25
#: The share of the requests in Redis that a look should find ended: with fewer looks the queue would run dry.
SHARE = 0.25


class Looks:
    """Adapts the pause to how long lines take: a look costs driver and Redis about as much as a line does."""

    def __init__(self) -> None:
        self._pause_s = LEAST_S

    def pause_s(self, found: int, in_flight: int) -> float:
        """The pause after a look that has found so many of so many requests ended; none if they were many."""
        if found and found >= SHARE * in_flight:
            self._pause_s = max(LEAST_S, self._pause_s / 2)
            return 0.0
        self._pause_s = min(self._pause_s * 1.5, LONGEST_S)
        return self._pause_s

"""For how long Redis has known nothing of a request, over its outages."""

from __future__ import annotations

#: Live workers write entries that Redis has lost in an outage again, within this time once it is back.
STEADY_S = 10.0
#: So much is enough where one outage follows another, the time between them taken together.
STEADY_IN_ALL_S = 45.0


class Absence:
    """One request's. Times are monotonic seconds.

    An outage does not end an absence: under one after the other a reader would never send a lost request again.
    """

    __slots__ = ("_back_at", "_since", "_steady_s")

    def __init__(self) -> None:
        self._since: float | None = None
        self._back_at: float | None = None
        self._steady_s = 0.0

    @property
    def is_on(self) -> bool:
        """Whether nothing was known of the request at the last look that Redis has answered."""
        return self._since is not None

    def note(self, now: float) -> None:
        """Redis has answered, and knows nothing of the request."""
        self._since = now if self._since is None else self._since
        self._back_at = now if self._back_at is None else self._back_at

    def interrupt(self, now: float) -> None:
        """Redis does not answer."""
        if self._back_at is not None:
            self._steady_s += now - self._back_at
        self._back_at = None

    def end(self) -> None:
        """The request is known, or is to be looked for from now on."""
        self._since = self._back_at = None
        self._steady_s = 0.0

    def left_s(self, now: float, grace_s: float) -> float:
        """Return the seconds until it is given up after ``grace_s``; not before Redis has been back for a while."""
        if self._since is None:
            return grace_s
        steady_s = min(grace_s, STEADY_S, max(0.0, STEADY_IN_ALL_S - self._steady_s))
        return max(self._since + grace_s, (now if self._back_at is None else self._back_at) + steady_s) - now

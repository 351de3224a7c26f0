"""The times in which an absent connection is no proof that its worker is dead."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, frozen=True, kw_only=True)
class Grace:
    """The time for which an absence is not believed, by its possible explanation.

    Attributes:
        absent_s: a worker whose connection is absent may be reconnecting.
        restarted_s: Redis has started a short time ago, or its clock has leapt: everyone is on the way back.
        reconnected_s: the sweep has lost its own connection. Keepers reconnect within 2 s.
        look_s: the interval in which a predecessor of the same name is looked at again.
    """

    absent_s: float = 1.0
    restarted_s: float = 10.0
    reconnected_s: float = 5.0
    look_s: float = 0.25

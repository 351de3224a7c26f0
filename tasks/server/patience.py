"""Bounds how long a process waits for Redis before it tells its readers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from worker_config.settings import Settings


@dataclass(slots=True, frozen=True, kw_only=True)
class Patience:
    """The times that a subscription waits.

    Attributes:
        idle_s: the thread ends when nobody has listened for so long.
        ping_after_s: a connection that was silent for so long is asked for a sign of life.
        answer_within_s: one that was asked for something, and says nothing for so long, is given up.
        first_contact_s: a reader in a process that has never reached this Redis is told so after so long.
        away_s: any other reader is told after so long that Redis is away; 0 means never.
    """

    idle_s: float = 30.0
    ping_after_s: float = 10.0
    answer_within_s: float = 5.0
    first_contact_s: float = 10.0
    away_s: float = 0.0

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the times in the settings."""
        return cls(
            answer_within_s=settings.redis_timeout_s,
            first_contact_s=2 * settings.redis_timeout_s,
            away_s=settings.redis_patience_s,
        )

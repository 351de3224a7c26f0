"""Counters of requests and tokens, of one second or of a whole life, and their sums over models."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(slots=True)
class Tally:
    """The counts of a worker. ``attempts`` began; ``succeeded`` to ``cancelled`` are requests that ended."""

    attempts: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    released: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0

    @property
    def requests(self) -> int:
        """The requests that ended, in any way."""
        return self.succeeded + self.failed + self.cancelled

    def add(self, other: Tally) -> None:
        """Add another tally's numbers to this one's."""
        for name in NAMES:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def as_dict(self) -> dict[str, int]:
        """The numbers by name."""
        return {"requests": self.requests, **{name: getattr(self, name) for name in NAMES}}

    def rates(self, observed_s: float) -> dict[str, float]:
        """The numbers per second, and the failed share of the requests that ended."""

        def per_s(count: int) -> float:
            return count / observed_s if observed_s > 0 else 0.0

        return {
            "tokens_per_s": per_s(self.completion_tokens),
            "prompt_tokens_per_s": per_s(self.prompt_tokens),
            "requests_per_s": per_s(self.requests),
            "error_rate": self.failed / self.requests if self.requests else 0.0,
        }


NAMES = tuple(field.name for field in fields(Tally))


def sums(counters: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Counters of the same names, added up; counters of newer versions too."""
    total = Tally().as_dict()
    for counter in counters:
        for name, value in counter.items():
            total[name] = total.get(name, 0) + value
    return total

"""Measures the cost of a worker's heartbeats."""

from __future__ import annotations

from collections import deque

from tasks.metrics.distributions import percentile

#: The last beats that percentiles are taken of.
KEPT = 1024


class BeatCosts:
    """Remembers how long the last beats took. For one thread to write; any thread may read."""

    def __init__(self) -> None:
        self._costs_ms: deque[float] = deque(maxlen=KEPT)
        self._count = 0

    def note(self, cost_s: float) -> None:
        """A beat took so long."""
        self._costs_ms.append(cost_s * 1000)
        self._count += 1

    def as_ms(self) -> dict[str, float]:
        """``p50``, ``p99`` and ``max`` in ms; ``count`` since the start. Empty before the first beat."""
        costs = sorted(self._costs_ms)
        if not costs:
            return {}
        return {
            "p50": round(percentile(costs, 50), 3),
            "p99": round(percentile(costs, 99), 3),
            "max": round(costs[-1], 3),
            "count": self._count,
        }

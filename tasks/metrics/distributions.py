"""Distributions in constant memory: percentiles of the last values, and counts in fixed buckets for ever."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from math import ceil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PERCENTILES = (50, 95, 99)


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest of the values that at least ``percent`` of them do not exceed (numpy's ``inverted_cdf``).

    Args:
        ordered: the values, ascending; at least one.
        percent: 0 … 100.
    """
    return ordered[max(ceil(len(ordered) * (percent / 100) - 1), 0)]


def summary(ordered: Sequence[float]) -> dict[str, float | None]:
    """Count, minimum, maximum, mean and percentiles of ascending values; ``None`` for all but the count if empty."""
    if not ordered:
        return {"count": 0, **dict.fromkeys(("min", "max", "mean", *(f"p{percent}" for percent in PERCENTILES)))}
    return {
        "count": len(ordered),
        "min": ordered[0],
        "max": ordered[-1],
        "mean": sum(ordered) / len(ordered),
        **{f"p{percent}": percentile(ordered, percent) for percent in PERCENTILES},
    }


class Window:
    """The last values, each with its time and label: bounded in number by ``samples``, in age by :meth:`expire`."""

    __slots__ = ("_samples", "_values")

    def __init__(self, samples: int) -> None:
        self._samples = samples
        self._values: deque[tuple[float, str, float]] = deque(maxlen=samples)

    def add(self, at: float, label: str, value: float, times: int = 1) -> None:
        """Keep a value that was observed ``times`` times just now."""
        self._values.extend([(at, label, value)] * min(times, self._samples))

    def expire(self, before: float) -> None:
        """Forget values that are older than this time."""
        while self._values and self._values[0][0] < before:
            self._values.popleft()

    def copy(self) -> list[tuple[float, str, float]]:
        """Time, label and value of all that is kept, oldest first."""
        return list(self._values)


def ordered_by_label(values: Iterable[tuple[float, str, float]]) -> dict[str, list[float]]:
    """A window's values, ascending, by label."""
    found: dict[str, list[float]] = {}
    for _, label, value in values:
        try:
            found[label].append(value)
        except KeyError:
            found[label] = [value]
    for by_value in found.values():
        by_value.sort()
    return found


class Histogram:
    """Counts by fixed buckets. ``bounds`` are their inclusive upper ends; one more bucket takes larger values."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float, times: int = 1) -> None:
        """Count a value that was observed ``times`` times."""
        self._counts[bisect_left(self._bounds, value)] += times
        self._sum += value * times

    def as_dict(self) -> dict[str, Any]:
        """Prometheus's form: ``buckets`` counts the values up to each bound of ``le``, ``count`` all of them."""
        running = 0
        buckets = []
        for count in self._counts[:-1]:
            running += count
            buckets.append(running)
        return {"le": list(self._bounds), "buckets": buckets, "count": running + self._counts[-1], "sum": self._sum}

"""What a row finds: figures with their spread, the targets that they are held against, and charts."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from tasks.metrics.distributions import percentile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: One contender's measurements in one repeat, by name.
Metrics: TypeAlias = "Mapping[str, float]"


@dataclass(slots=True, frozen=True)
class Target:
    """What a figure must reach, and what it should reach."""

    kind: Literal["at least", "at most"]
    must: float
    aim: float | None = None

    def reached(self, value: float) -> bool:
        """Whether the value is within what it must be."""
        return value >= self.must if self.kind == "at least" else value <= self.must


def at_least(must: float, aim: float | None = None) -> Target:
    """More is better."""
    return Target("at least", must, aim)


def at_most(must: float, aim: float | None = None) -> Target:
    """Less is better."""
    return Target("at most", must, aim)


@dataclass(slots=True, frozen=True)
class Figure:
    """One value for each repeat; ``unit`` is empty for a ratio."""

    name: str
    values: Sequence[float]
    unit: str = ""
    target: Target | None = None

    @property
    def median(self) -> float:
        """The middle value."""
        return statistics.median(self.values)

    @property
    def reached(self) -> bool | None:
        """Whether the median reaches the target; ``None`` where there is none."""
        return None if self.target is None else self.target.reached(self.median)


@dataclass(slots=True, frozen=True)
class Chart:
    """Groups of bars: for each series one value (or none) for each category."""

    title: str
    unit: str
    categories: Sequence[str]
    series: Mapping[str, Sequence[float | None]]


@dataclass(slots=True)
class Findings:
    """What one row found. ``figures`` are what it is for; ``measurements`` are the values that ratios were made of.

    ``judged`` says whether the loads were those that the targets are meant for.
    """

    row: str
    about: str
    judged: bool = True
    figures: list[Figure] = field(default_factory=list)
    measurements: list[Figure] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    seconds: float = 0.0
    error: str = ""

    def figure(self, name: str, values: Sequence[float], unit: str = "", target: Target | None = None) -> None:
        """Add a figure: a ratio, or a time or count that has a target of its own."""
        self.figures.append(Figure(name, list(values), unit, target if self.judged else None))

    def measured(self, name: str, values: Sequence[float], unit: str) -> None:
        """Add a measurement."""
        self.measurements.append(Figure(name, list(values), unit))

    def chart(
        self, title: str, unit: str, categories: Sequence[str], series: Mapping[str, Sequence[float | None]]
    ) -> None:
        """Add a chart."""
        self.charts.append(Chart(title, unit, list(categories), dict(series)))


class Samples:
    """What several contenders measured, repeat by repeat."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], list[float]] = {}

    def add(self, contender: str, metrics: Metrics) -> None:
        """Note one repeat of one contender."""
        for name, value in metrics.items():
            self._values.setdefault((contender, name), []).append(value)

    def values(self, contender: str, metric: str) -> list[float]:
        """One value for each repeat."""
        return self._values[contender, metric]

    def median(self, contender: str, metric: str) -> float | None:
        """The middle one; ``None`` where the contender did not run."""
        values = self._values.get((contender, metric))
        return statistics.median(values) if values else None

    def ratio(self, above: str, below: str, metric: str, below_metric: str | None = None) -> list[float]:
        """One quotient for each repeat, of what was measured one right after the other."""
        denominators = self.values(below, below_metric or metric)
        return [over / under for over, under in zip(self.values(above, metric), denominators, strict=True)]


def p50(values: Sequence[float]) -> float:
    """The 50th percentile."""
    return percentile(sorted(values), 50)


def p99(values: Sequence[float]) -> float:
    """The 99th percentile."""
    return percentile(sorted(values), 99)

"""Prometheus's text format, version 0.0.4, written directly.

``prometheus_client`` takes 10 µs a sample, which is most of a second for 500 workers, and is one more thing to install.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf, isnan
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

PREFIX = "celery_mlx_"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Kind: TypeAlias = Literal["gauge", "counter", "histogram"]


@dataclass(slots=True, frozen=True)
class Metric:
    """One metric: its name without the prefix, its kind, its labels, and its help."""

    name: str
    kind: Kind
    labels: str
    about: str

    @property
    def full_name(self) -> str:
        """As Prometheus has it."""
        return PREFIX + self.name


@dataclass(slots=True)
class Exposition:
    """One answer to a scrape: samples are added in any order and come out by metric.

    Args:
        metrics: all that may be added. Each is announced, whether or not it has samples.
    """

    metrics: Iterable[Metric]
    _lines: dict[str, list[str]] = field(init=False)

    def __post_init__(self) -> None:
        self._lines = {
            metric.name: [f"# HELP {metric.full_name} {metric.about}\n# TYPE {metric.full_name} {metric.kind}"]
            for metric in self.metrics
        }

    def add(self, name: str, value: Any, labels: str = "") -> None:
        """Add a sample, if the value is a number.

        Args:
            name: the metric.
            value: a number or a boolean.
            labels: as :func:`labels` writes them.
        """
        if _is_number(value):
            self._lines[name].append(f"{PREFIX}{name}{_braced(labels)} {_number(value)}")

    def add_histogram(self, name: str, histogram: Any, labels: str = "") -> None:
        """Add a histogram's dictionary, of milliseconds, in seconds, if the value is one."""
        if not _is_histogram(histogram):
            return
        full_name, separator = PREFIX + name, "," if labels else ""
        lines = self._lines[name]
        for bound_ms, count in zip(histogram["le"], histogram["buckets"], strict=True):
            lines.append(f'{full_name}_bucket{{{labels}{separator}le="{_number(bound_ms / 1000)}"}} {_number(count)}')
        count = _number(histogram["count"])
        lines.append(f'{full_name}_bucket{{{labels}{separator}le="+Inf"}} {count}')
        lines.append(f"{full_name}_sum{_braced(labels)} {_number(histogram['sum'] / 1000)}")
        lines.append(f"{full_name}_count{_braced(labels)} {count}")

    def encode(self) -> bytes:
        """The answer's body."""
        lines = [line for family in self._lines.values() for line in family]
        return ("\n".join(lines) + "\n").encode()


def labels(**values: Any) -> str:
    """Labels as they stand between the braces, escaped: values may come from anywhere."""
    return ",".join(f'{name}="{_escaped(str(value))}"' for name, value in values.items())


def _escaped(value: str) -> str:
    # Half characters (lone surrogates, which JSON allows) cannot be encoded.
    text = value.encode("utf-8", "replace").decode()
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _braced(labels: str) -> str:
    return f"{{{labels}}}" if labels else ""


def _number(value: float) -> str:
    if isnan(value):
        return "NaN"
    if value in (inf, -inf):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value + 0)  # a boolean becomes 0 or 1


def _is_number(value: Any) -> bool:
    """Whether Prometheus can read it: one number out of range would cost it the whole scrape."""
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63)


def _is_histogram(value: Any) -> bool:
    """Whether this is a histogram; a worker of another version may have sent anything."""
    try:
        bounds, buckets = value["le"], value["buckets"]
        numbers = [*bounds, *buckets, value["count"], value["sum"]]
        # A bound that comes twice would be one series with two values.
        return len(bounds) == len(buckets) == len({*bounds}) and all(map(_is_number, numbers))
    except (TypeError, KeyError):
        return False


def mapping(value: Any) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}

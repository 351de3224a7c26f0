"""Keeps this machine's measurements in a file, so that the next engine need not measure again."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tasks.engine.model.kept.kept_file import KeptFile

if TYPE_CHECKING:
    from pathlib import Path

FILE = "layouts-3.json"
#: More streams than this were never measured.
MOST_STREAMS = 4
#: The numbers of rows that products are measured with.
ROWS = (1, 4, 16, 128)


@dataclass(slots=True, frozen=True, kw_only=True)
class Measured:
    """The choice for one kind of weights.

    Args:
        machine: processor, BLAS and versions.
        kind: ``layers`` or ``head``, the shape that was tried, and the number of threads.
        width: see :class:`tasks.engine.model.layout.panels.Layout`.
        streams: see there.
        gains: see :class:`tasks.engine.model.layout.trial.Choice`.
        load: how many processes wanted a core while it was measured.
    """

    machine: str
    kind: str
    width: int
    streams: tuple[int, ...]
    gains: tuple[float, ...]
    load: float

    @property
    def says(self) -> str:
        """For people."""
        if not self.width:
            return f"{self.kind}: as they come"
        panels = "transposed" if self.width < 0 else f"in panels of {self.width}"
        gains = " · ".join(f"{gain:g}" for gain in self.gains)
        rows = " · ".join(map(str, ROWS[: len(self.gains)]))
        return f"{self.kind}: {panels}; {gains} times as fast with {rows} rows"


class Record:
    """The file, in a folder for caches."""

    def __init__(self, folder: Path) -> None:
        self._file = KeptFile(folder / FILE)

    def all(self) -> list[Measured]:
        """Return all measurements, the latest last."""
        try:
            return [_measured(entry) for entry in self._file.read()]
        except (TypeError, KeyError):
            return []

    def current(self, machine: str, threads: int) -> list[Measured]:
        """Return what an engine would use: not what was measured with other threads, or named by an older version."""
        return [
            entry for entry in self.all() if entry.machine == machine and entry.kind.endswith(f", {_counted(threads)}")
        ]

    def find(self, machine: str, kind: str, load: float) -> Measured | None:
        """Return the measurement of this kind, unless the machine was busy then and has become idle."""
        cores = os.cpu_count() or 1
        for entry in self.all():
            if (entry.machine, entry.kind) == (machine, kind) and entry.load <= max(cores, 2 * load):
                return entry
        return None

    def add(self, measured: Measured) -> None:
        """Keep it, in place of an earlier one."""
        others = [entry for entry in self.all() if (entry.machine, entry.kind) != (measured.machine, measured.kind)]
        self._file.write([asdict(entry) for entry in [*others, measured]])


def name_of(kind: str, shape: tuple[int, int], threads: int) -> str:
    """Return the name of a measurement, as :class:`Measured` has it."""
    return f"{kind} {shape[0]}x{shape[1]}, {_counted(threads)}"


def _counted(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def _measured(entry: dict[str, Any]) -> Measured:
    return Measured(**{**entry, "streams": tuple(entry["streams"]), "gains": tuple(entry["gains"])})

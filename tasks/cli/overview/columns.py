"""A table of plain text for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.cli.overview.terminal import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LONGEST = 60


def aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Return the rows as lines that standard output can encode; a very long cell does not widen its column."""
    widths = [min(LONGEST, max(len(row[column]) for row in rows)) for column in range(len(rows[0]))]
    for row in rows:
        yield printable("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())

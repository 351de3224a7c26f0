"""A table of plain text for people."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LONGEST = 60


def aligned(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """The rows as lines, in what standard output can encode; a cell that is very long does not widen its column."""
    widths = [min(LONGEST, max(len(row[column]) for row in rows)) for column in range(len(rows[0]))]
    encoding = sys.stdout.encoding or "utf-8"
    for row in rows:
        text = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        yield text.encode(encoding, "replace").decode(encoding)

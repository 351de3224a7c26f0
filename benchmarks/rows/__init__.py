"""The rows: each module measures one family of figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.rows import (
    affinity,
    batching,
    beside_bulk,
    bulk,
    by_hand,
    drafts,
    faults,
    fleet,
    gateway,
    http,
    memory,
    overhead,
    prefix,
    relay,
    scale,
    step,
    structured,
    tax,
    throughput,
    unshared,
)

if TYPE_CHECKING:
    from benchmarks.bench import Row

#: In the order in which they run.
ROWS: tuple[Row, ...] = tuple(
    module.ROW
    for module in (
        throughput,
        overhead,
        gateway,
        http,
        tax,
        relay,
        scale,
        prefix,
        affinity,
        unshared,
        batching,
        step,
        structured,
        drafts,
        memory,
        bulk,
        beside_bulk,
        by_hand,
        fleet,
        faults,
    )
)

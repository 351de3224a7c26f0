"""The fleet as plain text, for pipes, files and terminals without colours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.cli.overview.table import (
    FAILURES_SHOWN,
    QUEUE_COLUMNS,
    WORKER_COLUMNS,
    failure_line,
    fitted,
    queue_row,
    worker_row,
)
from tasks.cli.overview.words import clean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.cli.overview.table import Table
    from tasks.fleet.state import FleetState


def lines(state: FleetState, width: int | None = None) -> Iterator[str]:
    """The lines of the whole overview, at most ``width`` characters wide; without one nothing is cut."""
    if state.workers:
        yield from table_lines(fitted(WORKER_COLUMNS, [worker_row(worker) for worker in state.workers], width))
        yield ""
    yield from (f"{clean(field.node)}  unreadable: {clean(field.why)}" for field in state.unreadable)
    yield from table_lines(fitted(QUEUE_COLUMNS, [queue_row(queue) for queue in state.queues_of_interest], width))
    if state.failures:
        yield ""
        yield "recent failures"
        yield from (failure_line(failure) for failure in state.failures[:FAILURES_SHOWN])
    if state.warnings:
        yield ""
        yield from (f"warning: {clean(warning)}" for warning in state.warnings)


def table_lines(table: Table) -> Iterator[str]:
    """The titles and the rows, as lines."""
    return ("".join(cells).rstrip() for cells in table.lines())

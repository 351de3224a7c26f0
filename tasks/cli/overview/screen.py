"""The fleet on a terminal, through rich: colours, bars, the terminal's width."""

from __future__ import annotations

from textwrap import wrap
from typing import TYPE_CHECKING

from rich.console import Group
from rich.text import Text

from tasks.cli.overview.requests import REQUEST_COLUMNS, request_row
from tasks.cli.overview.table import (
    FAILURES_SHOWN,
    QUEUE_COLUMNS,
    WORKER_COLUMNS,
    failure_line,
    fitted,
    queue_row,
    worker_row,
)
from tasks.cli.overview.words import FULL, NOTHING, clean, cut, size
from tasks.fleet.words import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, RenderableType

    from tasks.broker.inventory.inventory import OpenRequest
    from tasks.cli.overview.table import Table
    from tasks.fleet.state import Failure, FleetState

STYLES = {
    "online": "green",
    "starting": "cyan",
    "draining": "blue",
    "degraded": "yellow",
    "stuck": "red",
    "silent": "red",
    "running": "green",
    "loading": "cyan",
    "waiting": "yellow",
    "scheduled": "blue",
}
#: Columns in which anything but nothing means that somebody waits.
WAITING = ("waiting", "oldest")
#: The fewest workers that a low terminal shows.
ROWS_AT_LEAST = 3
#: A failure's reason takes the lines that it needs, but for a very long one.
FAILURE_LINES = 4
#: Its further lines begin below the worker's name.
FAILURE_INDENT = 10


def overview(
    state: FleetState, width: int, height: int | None = None, *, stale: str = "", hint: str = ""
) -> RenderableType:
    """The whole overview for a terminal of this size; without a height every worker is shown.

    Args:
        state: the fleet to show.
        width: columns of the terminal.
        height: rows of the terminal.
        stale: why the state is an old one, if it is.
        hint: which keys there are, as the last line.
    """
    notes = _notes(state, stale)
    failures = [line for failure in state.failures[:FAILURES_SHOWN] for line in _failure(failure, width)]
    tail = [Text(), Text("recent failures", style="bold dim"), *failures] if failures else []
    tail += [Text(), Text(cut(hint, width), style="dim")] if hint else []
    queues = _rich(fitted(QUEUE_COLUMNS, [queue_row(queue, bars=True) for queue in state.queues_of_interest], width))
    shown, more = state.workers, ""
    if height is not None:
        note_lines = sum(len(wrap(note.plain, width)) for note in notes)
        room = max(ROWS_AT_LEAST, height - note_lines - len(state.queues_of_interest) - len(tail) - 6)
        if len(shown) > room:
            shown = shown[: room - 1]
            more = f"… and {len(state.workers) - len(shown)} more: --once shows them all"
    parts: list[RenderableType] = [_headline(state), *notes]
    if shown:
        workers = _rich(fitted(WORKER_COLUMNS, [worker_row(worker, bars=True) for worker in shown], width))
        parts += [Text(), workers]
    if more:
        parts.append(Text(more, style="dim"))
    return Group(*parts, Text(), queues, *tail)


def request_list(
    state: FleetState, found: Sequence[OpenRequest], width: int, height: int, *, stale: str = "", hint: str = ""
) -> RenderableType:
    """The open requests, as many as a terminal of this size shows."""
    notes = _notes(state, stale)
    room = max(ROWS_AT_LEAST, height - sum(len(wrap(note.plain, width)) for note in notes) - 6)
    parts: list[RenderableType] = [_headline(state), *notes, Text()]
    if found:
        shown = found if len(found) <= room else found[: room - 1]
        parts.append(_rich(fitted(REQUEST_COLUMNS, [request_row(request) for request in shown], width)))
        if len(shown) < len(found):
            parts.append(Text(f"… and {len(found) - len(shown)} more", style="dim"))
    else:
        parts.append(Text("no request runs or waits", style="dim"))
    return Group(*parts, Text(), Text(cut(hint, width), style="dim"))


def show(console: Console, state: FleetState) -> None:
    """Show the fleet once, with every worker."""
    console.print(overview(state, console.width))


def _notes(state: FleetState, stale: str) -> list[Text]:
    warnings = [*([stale] if stale else []), *state.warnings]
    notes = [Text(f"warning: {clean(warning)}", style="yellow", overflow="fold") for warning in warnings]
    return notes + [
        Text(f"{clean(field.node)} unreadable: {clean(field.why)}", style="red", overflow="fold")
        for field in state.unreadable[:ROWS_AT_LEAST]
    ]


def _failure(failure: Failure, width: int) -> list[Text]:
    """Describe a failure: when, where, which model, why; one line, or as many as a narrow terminal needs for them."""
    lines = wrap(
        failure_line(failure), width, subsequent_indent=" " * FAILURE_INDENT, max_lines=FAILURE_LINES, placeholder="…"
    )
    return [Text(cut(part, width), style="red", no_wrap=True) for part in lines]


def _headline(state: FleetState) -> Text:
    busy = sum(sum(worker.record.busy.values()) for worker in state.workers)
    slots = sum(worker.record.concurrency for worker in state.workers if worker.leased)
    rates = [worker.record.metrics.get("tokens_per_s") for worker in state.workers if worker.leased]
    tokens = sum(rate for rate in rates if isinstance(rate, int | float))
    waiting = sum(queue.depth for queue in state.queues)
    line = Text(
        f"{counted(len(state.workers), 'worker')}, {busy} of {counted(slots, 'slot')} busy, {tokens:.0f} tokens/s, ",
        style="bold",
        no_wrap=True,
        overflow="ellipsis",
    )
    line.append(f"{counted(waiting, 'request')} waiting", style="yellow" if waiting else "")
    if state.redis_bytes is not None:
        bound = f" of {size(state.redis_most_bytes)}" if state.redis_most_bytes else ""
        line.append(f", Redis {size(state.redis_bytes)}{bound}")
    return line


def _rich(table: Table) -> Text:
    """The table as one text: rich's own tables take a second for 500 workers."""
    found = Text(no_wrap=True, overflow="crop", end="")
    for number, cells in enumerate(table.lines()):
        for cell, column in zip(cells, table.columns, strict=True):
            found.append(cell, style=_style(column.title, cell) if number else "bold dim")
        found.append("\n")
    return found


def _style(title: str, cell: str) -> str:
    if title in WAITING:
        return "" if cell.strip() in ("0", NOTHING) else "yellow"
    if title == "slots":
        return "cyan" if FULL in cell else ""
    return STYLES.get(cell.partition(":")[0].rstrip(" …"), "")

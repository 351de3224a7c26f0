"""The fleet on a terminal, through rich: colours, the terminal's width, and a live view."""

from __future__ import annotations

import time
from textwrap import wrap
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from tasks.cli.overview.table import QUEUE_COLUMNS, WORKER_COLUMNS, fitted, queue_row, worker_row
from tasks.cli.overview.words import age, clean, counted
from tasks.errors import GenerationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import RenderableType

    from tasks.cli.overview.state import FleetState
    from tasks.cli.overview.table import Table

REFRESH_S = 1.0
STYLES = {
    "online": "green",
    "starting": "cyan",
    "draining": "blue",
    "degraded": "yellow",
    "stuck": "red",
    "silent": "red",
}
#: The fewest workers that a low terminal shows.
ROWS_AT_LEAST = 3


def overview(state: FleetState, width: int, height: int | None = None, *, stale: str = "") -> RenderableType:
    """The whole overview for a terminal of this size; without a height every worker is shown.

    Args:
        state: what to show.
        width: columns of the terminal.
        height: rows of the terminal.
        stale: why the state is an old one, if it is.
    """
    warnings = [*([stale] if stale else []), *state.warnings]
    notes = [Text(f"warning: {clean(warning)}", style="yellow", overflow="fold") for warning in warnings]
    notes += [
        Text(f"{clean(field.node)} unreadable: {clean(field.why)}", style="red", overflow="fold")
        for field in state.unreadable[:ROWS_AT_LEAST]
    ]
    queues = _rich(fitted(QUEUE_COLUMNS, [queue_row(queue) for queue in state.queues], width))
    shown, more = state.workers, ""
    if height is not None:
        note_lines = sum(len(wrap(note.plain, width)) for note in notes)
        room = max(ROWS_AT_LEAST, height - note_lines - len(state.queues) - 6)
        if len(shown) > room:
            shown = shown[: room - 1]
            more = f"… and {len(state.workers) - len(shown)} more: --once shows them all"
    parts: list[RenderableType] = [_headline(state), *notes]
    if shown:
        workers = _rich(fitted(WORKER_COLUMNS, [worker_row(worker) for worker in shown], width))
        parts += [Text(), workers]
    if more:
        parts.append(Text(more, style="dim"))
    return Group(*parts, Text(), queues)


def watch(console: Console, read: Callable[[], FleetState]) -> None:
    """Show the fleet and renew it every second until the user interrupts; Redis may come and go.

    Raises:
        BrokerUnavailable: Redis cannot be reached at the first look.
    """
    state = read()
    seen_at = time.monotonic()
    stale = ""
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(overview(state, console.width, console.height, stale=stale), refresh=True)
            time.sleep(REFRESH_S)
            try:
                state, seen_at, stale = read(), time.monotonic(), ""
            except GenerationError as error:
                stale = f"shown as of {age(time.monotonic() - seen_at)} ago: {error}"


def show(console: Console, state: FleetState) -> None:
    """Show the fleet once, with every worker."""
    console.print(overview(state, console.width))


def _headline(state: FleetState) -> Text:
    busy = sum(sum(worker.record.busy.values()) for worker in state.workers)
    slots = sum(worker.record.concurrency for worker in state.workers if worker.leased)
    rates = [worker.record.metrics.get("tokens_per_s") for worker in state.workers if worker.leased]
    tokens = sum(rate for rate in rates if isinstance(rate, int | float))
    waiting = sum(queue.depth for queue in state.queues)
    return Text(
        f"{counted(len(state.workers), 'worker')}, {busy} of {counted(slots, 'slot')} busy, {tokens:.0f} tokens/s, "
        f"{counted(waiting, 'request')} waiting",
        style="bold",
    )


def _rich(table: Table) -> Text:
    """The table as one text: rich's own tables take a second for 500 workers."""
    found = Text(no_wrap=True, overflow="crop", end="")
    for number, cells in enumerate(table.lines()):
        for cell in cells:
            found.append(cell, style=_style(cell) if number else "bold dim")
        found.append("\n")
    return found


def _style(cell: str) -> str:
    return STYLES.get(cell.partition(":")[0].rstrip(" …"), "")

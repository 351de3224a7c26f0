"""The tables of ``fleet`` as rows of text, and which columns fit into a width."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tasks.cli.overview.words import NOTHING, bar, clean, cut, gib, milliseconds, percent, rate, tiers, width
from tasks.fleet.words import age

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tasks.fleet.state import Failure, QueueView, WorkerView

GAP = 2
#: The recent failures that are shown.
FAILURES_SHOWN = 3


@dataclass(slots=True, frozen=True)
class Column:
    """One column. When space is short, columns of a high ``rank`` go first; ``least`` is the least width."""

    title: str
    rank: int
    least: int = 0
    justify: Literal["left", "right"] = "left"


WORKER_COLUMNS = (
    Column("worker", 0, least=12),
    Column("chip", 7, least=14),
    Column("tiers", 4),
    Column("status", 1, least=10),
    Column("slots", 2),
    Column("models", 6, least=12),
    Column("tok/s", 3, justify="right"),
    Column("first token", 5, justify="right"),
    Column("GPU", 8, justify="right"),
    Column("memory GB", 9, justify="right"),
    Column("beat", 3, justify="right"),
)
QUEUE_COLUMNS = (
    Column("tier", 0),
    Column("queue", 3),
    Column("waiting", 1, justify="right"),
    Column("oldest", 2, justify="right"),
    Column("workers", 1, justify="right"),
    Column("slots", 2),
)


@dataclass(slots=True, frozen=True)
class Table:
    """Rows of cells under titles. ``widths`` has a number for each column; longer cells are cut there."""

    columns: tuple[Column, ...]
    rows: list[tuple[str, ...]]
    widths: tuple[int, ...]

    def lines(self) -> Iterator[list[str]]:
        """The titles and then each row, as cells that are padded to their columns, gaps included."""
        for cells in [tuple(column.title for column in self.columns), *self.rows]:
            yield [
                _padded(cut(cell, columns), columns, column.justify) + " " * (GAP if i < len(cells) - 1 else 0)
                for i, (cell, column, columns) in enumerate(zip(cells, self.columns, self.widths, strict=True))
            ]


def worker_row(worker: WorkerView, *, bars: bool = False) -> tuple[str, ...]:
    """The cells of one worker, in the order of :data:`WORKER_COLUMNS`; with ``bars`` its slots are drawn."""
    record, usage, metrics = worker.record, worker.record.usage, worker.record.metrics
    first_token = metrics.get("first_token_ms")
    hardware = record.hardware
    chip = clean(hardware.get("chip") or NOTHING).removeprefix("Apple ")
    reason = clean(worker.reason)
    return (
        clean(record.node),
        f"{chip} (sim)" if hardware.get("overridden") else chip,
        tiers(record.queues),
        f"{worker.condition}: {reason}" if reason else worker.condition,
        _slots(sum(record.busy.values()), record.concurrency, bars=bars),
        " ".join(clean(model) for model in record.models) or NOTHING,
        rate(metrics.get("tokens_per_s")),
        milliseconds(first_token.get("p95") if isinstance(first_token, dict) else None),
        percent(usage.get("gpu_percent")),
        f"{gib(usage.get('memory_used_bytes'))}/{gib(usage.get('memory_total_bytes'))}",
        age(worker.beat_age_s),
    )


def queue_row(queue: QueueView, *, bars: bool = False) -> tuple[str, ...]:
    """The cells of one queue, in the order of :data:`QUEUE_COLUMNS`; with ``bars`` its slots are drawn."""
    return (
        queue.tier or NOTHING,
        clean(queue.queue),
        f"{queue.depth}+{queue.scheduled}" if queue.scheduled else str(queue.depth),
        NOTHING if queue.oldest_s is None else age(queue.oldest_s),
        str(queue.workers),
        _slots(queue.busy, queue.slots, bars=bars) if queue.slots else NOTHING,
    )


def failure_line(failure: Failure) -> str:
    """A failure as one line: when, where, which model, why."""
    where = " ".join(clean(part) for part in (failure.node, failure.model) if part)
    reason = f": {clean(failure.reason)}" if failure.reason else ""
    return f"{age(failure.age_s):>4} ago  {where}  {clean(failure.code)}{reason}"


def fitted(columns: tuple[Column, ...], rows: Sequence[tuple[str, ...]], limit: int | None) -> Table:
    """The table, narrowed to ``limit`` characters (``None``: as wide as it is).

    The least important columns go, then the widest of the flexible ones shrink.
    """
    wanted = [max([width(column.title), *(width(row[i]) for row in rows)]) for i, column in enumerate(columns)]
    kept = list(range(len(columns)))
    if limit is not None:
        floors = [
            min(columns_wanted, max(column.least, len(column.title))) if column.least else columns_wanted
            for columns_wanted, column in zip(wanted, columns, strict=True)
        ]
        while _total(floors[i] for i in kept) > limit and len(kept) > 1:
            kept.remove(max(kept, key=lambda i: columns[i].rank))
        for _ in range(_total(wanted[i] for i in kept) - limit):
            shrinkable = [i for i in kept if wanted[i] > floors[i]]
            if shrinkable:
                wanted[max(shrinkable, key=lambda i: wanted[i])] -= 1
    return Table(
        tuple(columns[i] for i in kept),
        [tuple(row[i] for i in kept) for row in rows],
        tuple(wanted[i] for i in kept),
    )


def _slots(busy: int, slots: int, *, bars: bool) -> str:
    return bar(busy, slots) if bars else f"{busy}/{slots}"


def _padded(cell: str, columns: int, justify: str) -> str:
    space = " " * (columns - width(cell))
    return space + cell if justify == "right" else cell + space


def _total(widths: Iterable[int]) -> int:
    found = list(widths)
    return sum(found) + GAP * (len(found) - 1)

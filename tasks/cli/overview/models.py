"""The models that may be asked for: what fits this machine, what is on its disk, and which workers take requests for it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tasks.cli.diagnosis.models import folder_of
from tasks.cli.overview.table import Column
from tasks.cli.overview.words import NOTHING, gib, percent
from tasks.errors import GenerationError
from tasks.models.capabilities import capabilities
from tasks.models.files import read_model_size
from tasks.models.footprint import expected
from tasks.models.reading import ModelFilesUnreadable
from tasks.models.routing import tier_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tasks.fleet.state import WorkerView
    from tasks.hardware import Hardware
    from tasks.messages.registry import EngineState
    from worker_config.catalogue import ModelEntry

COLUMNS = (
    Column("model", 0),
    Column("tier", 5),
    Column("fits here", 2),
    Column("on this disk", 3),
    Column("workers", 1, least=12),
    Column("source", 9, least=20),
)


@dataclass(slots=True, frozen=True)
class Line:
    """One model: ``disk`` is ``yes``, ``partly`` or ``no``, ``bytes`` its weights.

    ``fits_here`` is whether a worker on this machine would take its requests; ``None`` where nothing tells its size.
    ``workers`` says what each live worker does with it now, ``takers`` are the live workers that take requests for it.
    """

    model: str
    tier: str
    source: str
    disk: str
    bytes: int | None
    workers: dict[str, str]
    fits_here: bool | None = None
    takers: list[str] = field(default_factory=list)


def model_line(
    entry: ModelEntry,
    hardware: Hardware | None,
    live: Sequence[WorkerView],
    loaded: Mapping[str, str],
    step_tokens: int,
) -> Line:
    """Describe one model; an engine computes so many prompt tokens in a step."""
    tier, queue = "", ""
    with suppress(GenerationError):
        found = tier_of(entry)
        tier, queue = found.name, found.queue
    disk, weights_bytes = _on_disk(entry)
    return Line(
        model=entry.name,
        tier=tier,
        source=entry.source if entry.kind in ("hub", "path") else entry.kind,
        disk=disk,
        bytes=weights_bytes,
        workers=dict(loaded),
        fits_here=None if hardware is None or not queue else _fits(entry, hardware, queue, step_tokens),
        takers=[worker.record.node for worker in live if worker.serves(queue) and _takes(entry, worker, step_tokens)],
    )


def model_row(line: Line) -> tuple[str, ...]:
    """Its cells, in the order of :data:`COLUMNS`."""
    disk = f"{gib(line.bytes)} GB" if line.disk == "yes" else line.disk.replace("no", NOTHING)
    fits = {True: "yes", False: "no", None: NOTHING}[line.fits_here]
    nodes = dict.fromkeys([*line.workers, *line.takers])
    workers = ", ".join(f"{node} ({line.workers[node]})" if node in line.workers else node for node in nodes)
    return line.model, line.tier, fits, disk, workers or NOTHING, line.source


def doing(engine: EngineState) -> str:
    """Describe what a worker does with a model."""
    if engine.state == "downloading" and engine.fraction is not None:
        return f"downloading {percent(100 * engine.fraction)}"
    return "pinned" if engine.pinned and engine.state == "ready" else engine.state


def _fits(entry: ModelEntry, hardware: Hardware, queue: str, step_tokens: int) -> bool | None:
    offer = capabilities(hardware)
    if queue not in offer.slots_by_queue:
        return False
    try:
        budget = offer.memory_budget_bytes
        return expected(entry, hardware.engine_accelerator, step_tokens, budget).floor_bytes <= budget
    except GenerationError:
        return None


def _takes(entry: ModelEntry, worker: WorkerView, step_tokens: int) -> bool:
    """Whether a worker's budget has room for it at all, and its catalogue knows it."""
    record = worker.record
    if entry.name in record.unknown_models:
        return False
    accelerator = str(record.hardware.get("accelerator") or "")
    with suppress(GenerationError):
        return expected(entry, accelerator, step_tokens, record.budget_bytes).floor_bytes <= record.budget_bytes
    return True


def _on_disk(entry: ModelEntry) -> tuple[str, int | None]:
    folder = folder_of(entry)
    if folder is None or not folder.is_dir():
        return "no", None
    try:
        size = read_model_size(folder).weights_bytes
    except ModelFilesUnreadable:
        return "partly", None
    return ("yes" if size is not None else "partly"), size

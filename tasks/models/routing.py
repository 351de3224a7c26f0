"""Routes a request to its queue: model → size → tier → queue. Pure, but for the local files of the model itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import floor
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tasks.errors import InvalidRequest, UnknownModel
from tasks.messages.registry import WorkerRecord
from tasks.models.files import ModelSize, read_model_size
from tasks.models.names import bits_from_name, parameters_from_name
from tasks.models.reading import ModelFilesUnreadable
from tasks.names import COMMAND, is_ours
from worker_config.cache import bundled_folder
from worker_config.catalogue import Catalogue, ModelEntry, ModelNotAllowed, catalogue_of
from worker_config.celeryconfig import settings_of
from worker_config.hub import hub_snapshot
from worker_config.tiers import MEMORY_SHARE, QUEUES, SMALLEST_MEMORY_GB, TIERS, Tier, tier_of_queue
from worker_config.units import GIB

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tasks.messages.registry import Unreadable

__all__ = [
    "FleetSnapshot",
    "QueueCapacity",
    "Route",
    "bits_from_name",
    "parameters_from_name",
    "queue_for",
    "queue_for_model",
    "route_task",
    "route_tier",
    "size_of",
    "snapshot_of",
    "tier_for",
    "tier_of",
]

#: The KV cache that a tier's smallest machine must have room for beside the weights: one request of 4,096 tokens …
KV_ROOM_TOKENS = 4096
#: … and, where nothing says how large that is, what it takes in Llama 3.1 8B (32 layers × 8 heads × 128 × 2 × 2 bytes).
KV_ROOM_BYTES = GIB // 2


@dataclass(frozen=True, slots=True)
class QueueCapacity:
    """The capacity of the live workers of one queue together, in requests."""

    workers: int = 0
    slots: int = 0
    busy: int = 0


@dataclass(frozen=True, slots=True)
class FleetSnapshot:
    """The fleet as routing sees it: the capacity of each queue now. A queue that nobody serves is absent.

    ``tiers`` has the queues of the models whose files live workers have, by the models' names.
    """

    queues: Mapping[str, QueueCapacity] = field(default_factory=lambda: MappingProxyType({}))
    tiers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def serves(self, queue: str) -> bool:
        """Whether a live worker takes requests from this queue."""
        return queue in self.queues


@dataclass(frozen=True, slots=True)
class Route:
    """The destination of a request. ``warning`` is ``None``, or says that nobody takes it from there and what would."""

    queue: str
    tier: Tier
    warning: str | None = None


def queue_for(model: str, snapshot: FleetSnapshot, catalogue: Catalogue, size: ModelSize | None = None) -> Route:
    """The route of a request for this model in this fleet; pure when the size is given.

    Args:
        model: the model's name, as the request has it.
        snapshot: the capacity of each queue.
        catalogue: which models there are.
        size: the size by the model's files; by default it is read from them, if they are local.

    Raises:
        UnknownModel: the model is not allowed, or nothing tells its size.
    """
    entry = _entry(model, catalogue)
    tier = tier_of(entry, size) if size is not None else route_tier(entry, snapshot.tiers.get(entry.name))
    if snapshot.serves(tier.queue):
        return Route(tier.queue, tier)
    return Route(tier.queue, tier, _nobody_serves(model, tier, snapshot))


def queue_for_model(model: str, catalogue: Catalogue, fleet: Mapping[str, str] = MappingProxyType({})) -> str:
    """The queue of a model.

    Args:
        model: the model's name, as the request has it.
        catalogue: which models there are.
        fleet: the queues of models whose files live workers have, by name.

    Raises:
        UnknownModel: the model is not allowed, or nothing tells its size.
    """
    entry = _entry(model, catalogue)
    return route_tier(entry, fleet.get(entry.name)).queue


def route_tier(entry: ModelEntry, known: str | None = None) -> Tier:
    """The tier that requests for a model are sent to, which every producer has to agree on.

    That is the tier which the catalogue pins, else the one that the fleet knows by the model's files (``known``, a queue), else
    the one that the catalogue and the name tell. The files on this machine count only where nothing else tells the size: two
    producers, one with the files and one without, would queue one model in two tiers.

    Raises:
        UnknownModel: nothing tells its size.
    """
    if entry.tier is None and known in QUEUES:
        return tier_of_queue(known)
    if entry.tier is not None or entry.kind == "path":  # the folder's name says nothing, and workers have the same one
        return tier_of(entry)
    try:
        return tier_of(entry, ModelSize())
    except UnknownModel:
        return tier_of(entry)


def route_task(
    name: str, args: Any, kwargs: Mapping[str, Any] | None, options: Any, task: Any = None, **_: Any
) -> dict[str, str] | None:
    """Celery's ``task_routes`` hook: the queue of a ``generate`` request that names none; other tasks go where they always went.

    It reads nothing: the task has the fleet's answers. It runs in ``delay`` itself, so what it raises reaches the producer.

    Raises:
        InvalidRequest: ``model`` is no text.
        UnknownModel: the model is not allowed, or nothing tells its size.
    """
    if not is_ours(name) or (options and options.get("queue")):
        return None
    fleet = getattr(task, "fleet", None)  # Celery's map and starmap of a request route by its name, with their own task
    settings = fleet.settings if fleet is not None else settings_of(task.app if task is not None else None)
    model = (kwargs or {}).get("model") or settings.default_model
    if not isinstance(model, str):
        raise InvalidRequest(f"model={model!r}: expected the name of a model, as text")
    return {"queue": queue_for_model(model, catalogue_of(settings)) if fleet is None else fleet.queue_of(model)}


def tier_of(entry: ModelEntry, size: ModelSize | None = None) -> Tier:
    """The tier of a catalogue entry: the one it is pinned to, else by its size.

    Raises:
        UnknownModel: nothing tells its size.
    """
    return entry.tier or tier_for(size_of(entry, size))


def size_of(entry: ModelEntry, files: ModelSize | None = None) -> ModelSize:
    """A model's size: parameters by the catalogue, else its files, else its name; bytes by its files, else its name.

    Args:
        entry: the model.
        files: the size by its files; by default it is read from them, if they are local.

    Raises:
        UnknownModel: nothing tells how many parameters it has.
    """
    why = "its files are not here" if entry.kind != "path" else f"there is no {entry.source} on this machine"
    if files is None:
        try:
            files = _local_size(entry)
        except ModelFilesUnreadable as error:
            why = str(error)
    files = files or ModelSize()
    parameters_b = entry.parameters_b or files.parameters_b or parameters_from_name(entry.source)
    if parameters_b is None:
        raise UnknownModel(
            f"model {entry.name!r}: neither its name nor its files tell its size ({why}); add it to the file that "
            "CELERY_MLX_CATALOGUE names, with parameters_b or tier"
        )
    weights_bytes = files.weights_bytes
    # A repository on the hub that names no quantisation holds 16-bit weights.
    bits = bits_from_name(entry.source) or (16.0 if entry.kind == "hub" else None)
    if weights_bytes is None and bits is not None:
        weights_bytes = int(parameters_b * 1e9 * bits / 8)
    return ModelSize(
        parameters_b=parameters_b,
        weights_bytes=weights_bytes,
        kv=files.kv,
        single_precision=files.single_precision,
        context_tokens=entry.context_tokens or files.context_tokens,
        encoder=files.encoder,
    )


def tier_for(size: ModelSize) -> Tier:
    """The smallest tier whose parameters and whose memory the model fits.

    Parameters are rounded to the nearest billion, half up, and a tier's lower bound is its own: 6.74 is a 7. The
    weights and a KV cache must fit 80 % of the memory that the tier's smallest machine has; a model moves up until they
    do, and ``30B+`` takes the rest.
    """
    rounded = floor((size.parameters_b or 0.0) + 0.5)
    first = max(index for index, tier in enumerate(TIERS) if rounded >= tier.parameters_from_b)
    needed = (size.weights_bytes or 0) + kv_room_bytes(size)
    for tier in TIERS[first:]:
        if size.weights_bytes is None or needed <= (tier.memory_gb or SMALLEST_MEMORY_GB) * GIB * MEMORY_SHARE:
            return tier
    return TIERS[-1]


def snapshot_of(records: Iterable[WorkerRecord | Unreadable], alive_since_s: float = 0.0) -> FleetSnapshot:
    """Read the workers of each queue from their records: those that drain, are paused or were silent too long serve none.

    Args:
        records: the registry hash, decoded.
        alive_since_s: a worker that was silent since then, in Unix seconds by Redis's clock, is dead.
    """
    queues: dict[str, QueueCapacity] = {}
    tiers: dict[str, str] = {}
    for record in records:
        if not isinstance(record, WorkerRecord) or record.status == "draining" or record.paused:
            continue
        if record.beat_at < alive_since_s:
            continue
        for queue in filter(_is_text, record.queues):
            before = queues.get(queue, QueueCapacity())
            queues[queue] = QueueCapacity(
                before.workers + 1,
                before.slots + _count(record.slots, queue),
                before.busy + _count(record.busy, queue),
            )
        # Where workers disagree, as in the middle of a model's upgrade, every producer takes the larger tier.
        for model, queue in record.tiers.items():
            if queue in QUEUES and QUEUES.index(queue) >= QUEUES.index(tiers.get(model, QUEUES[0])):
                tiers[model] = queue
    return FleetSnapshot(MappingProxyType(queues), MappingProxyType(tiers))


def _entry(model: str, catalogue: Catalogue) -> ModelEntry:
    try:
        return catalogue.resolve(model)
    except ModelNotAllowed as error:
        raise UnknownModel(str(error)) from None


def _local_size(entry: ModelEntry) -> ModelSize | None:
    folder: Path | None = None
    if entry.kind == "path":
        folder = Path(entry.source)
    elif entry.kind == "bundled":
        folder = bundled_folder(entry.source)
    elif entry.kind == "hub":
        folder = hub_snapshot(entry.source, entry.revision)
    return read_model_size(folder) if folder is not None and folder.is_dir() else None


def kv_room_bytes(size: ModelSize) -> int:
    """The KV cache of one request of 4,096 tokens, or of the whole context if that is less, with values of 16 bits."""
    if size.kv is None:
        return KV_ROOM_BYTES
    return size.kv.row_bytes(min(KV_ROOM_TOKENS, size.context_tokens or KV_ROOM_TOKENS))


def _nobody_serves(model: str, tier: Tier, snapshot: FleetSnapshot) -> str:
    served = ", ".join(sorted(snapshot.queues)) or "no queue at all"
    needs = f", which a Mac with {tier.gpu_cores} GPU cores and {tier.memory_gb} GB does" if tier.memory_gb else ""
    return (
        f"no live worker consumes {tier.queue}, where requests for {model!r} (tier {tier.name}) wait; the fleet serves "
        f"{served}. Start `{COMMAND} worker -Q {tier.queue}` on a machine that carries the tier{needs}"
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _count(counts: Any, queue: str) -> int:
    value = counts.get(queue, 0) if isinstance(counts, dict) else 0
    return value if isinstance(value, int) else 0

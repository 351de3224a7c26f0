"""A worker's record in the registry hash.

Records are JSON. ``decode_record`` never raises: garbage and records of newer versions come back as :class:`Unreadable`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

from pydantic import ConfigDict, TypeAdapter, ValidationError

from tasks.messages.encoding import to_compact_json

VERSION = 1
#: Types as JSON has them: no number out of a text, no integer out of a fraction, no NaN. Unknown fields are dropped.
TYPES = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)
Status: TypeAlias = Literal["starting", "online", "degraded", "draining"]


@dataclass(slots=True, frozen=True, kw_only=True)
class EngineState:
    """One engine of a worker. Bytes; ``tokens_per_s`` over the metrics' window.

    ``fraction`` (0 to 1) is how far a download or a load is; ``None`` where that cannot be known. ``reserved_bytes`` is the
    engine's share of the worker's budget, ``memory_bytes`` what it uses of it. ``kv_cache_ratio`` (0 to 1) is what KV
    caches, cached prompts and activations take of the memory that the engine may use beside its weights.
    """

    __pydantic_config__: ClassVar[ConfigDict] = TYPES

    model: str
    state: Literal["downloading", "loading", "ready", "ending", "failed"]
    fraction: float | None = None
    pid: int | None = None
    revision: str | None = None
    pinned: bool = False
    reserved_bytes: int = 0
    memory_bytes: int | None = None
    kv_cache_ratio: float | None = None
    running: int = 0
    waiting: int = 0
    steps: int = 0
    tokens_per_s: float = 0.0
    idle_s: float | None = None
    reason: str = ""


@dataclass(slots=True, kw_only=True)
class WorkerRecord:
    """One worker, as it describes itself. Times are Redis's clock in Unix seconds.

    ``hardware`` is :class:`tasks.hardware.Hardware` and ``usage`` :class:`tasks.hardware.usage.Usage` as dictionaries;
    ``slots`` and ``busy`` count requests by queue; ``engine_restarts`` counts engines that died or stalled since the start,
    each replaced at its next request; ``budget_bytes`` is what all its engines may take together, and ``room_bytes`` what the
    largest model that it could load may need; ``metrics`` is :meth:`tasks.metrics.collector.MetricsCollector.snapshot`.
    ``tiers`` has the queues of the models whose files this worker has.
    ``unknown_models`` are those that requests wait for and that this worker's catalogue does not have, or that it cannot size.
    """

    __pydantic_config__: ClassVar[ConfigDict] = TYPES

    node: str
    boot: str
    status: Status
    reason: str = ""
    started_at: float = 0.0
    beat_at: float = 0.0
    loop_at: float = 0.0
    pid: int = 0
    version: str = ""
    concurrency: int = 0
    queues: list[str] = field(default_factory=list)
    slots: dict[str, int] = field(default_factory=dict)
    busy: dict[str, int] = field(default_factory=dict)
    paused: bool = False
    models: list[str] = field(default_factory=list)
    unknown_models: list[str] = field(default_factory=list)
    tiers: dict[str, str] = field(default_factory=dict)
    engines: list[EngineState] = field(default_factory=list)
    engine_restarts: int = 0
    budget_bytes: int = 0
    room_bytes: int = 0
    hardware: dict[str, Any] = field(default_factory=dict)
    usage: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """``node#boot``: this start of this worker, and no other."""
        return f"{self.node}#{self.boot}"


@dataclass(slots=True, frozen=True)
class Unreadable:
    """A field of the registry hash that is not a record of this version."""

    node: str
    why: str


@dataclass(slots=True, frozen=True)
class _Versioned:
    __pydantic_config__: ClassVar[ConfigDict] = TYPES

    v: int


_VERSIONED = TypeAdapter(_Versioned)
_RECORD = TypeAdapter(WorkerRecord)


def encode_record(record: WorkerRecord) -> str:
    """Return the record as JSON without its times, which the registry's scripts put in front."""
    values = asdict(record)
    for name in ("started_at", "beat_at", "loop_at"):
        del values[name]
    return to_compact_json({"v": VERSION, **values})


def decode_record(node: str, payload: str | bytes) -> WorkerRecord | Unreadable:
    """Return the record in this JSON without unknown fields, or the reason why it cannot be read."""
    try:
        version = _VERSIONED.validate_json(payload).v
        if version > VERSION:
            return Unreadable(node, f"written by a newer version (record version {version}, this is {VERSION})")
        record = _RECORD.validate_json(payload)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        return Unreadable(node, f"not a worker's record ({where + ': ' if where else ''}{first['msg']})"[:300])
    if record.node != node:
        return Unreadable(node, f"the record of another worker, {record.node!r}"[:300])
    return record

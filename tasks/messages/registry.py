"""A worker's record in the registry hash, and what is derived from all of them: the snapshot of the fleet.

Records are JSON. ``decode_record`` never raises: garbage and records of newer versions come back as what they are.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from math import isfinite
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    from collections.abc import Callable

VERSION = 1
Status: TypeAlias = Literal["starting", "online", "degraded", "draining"]


@dataclass(slots=True, frozen=True, kw_only=True)
class EngineState:
    """One engine of a worker. Bytes; ``tokens_per_s`` over the metrics' window.

    ``fraction`` (0 to 1) is how far a download or a load is; ``None`` where that cannot be known. ``reserved_bytes`` is the
    engine's share of the worker's budget, ``memory_bytes`` what it uses of it. ``kv_cache_ratio`` (0 to 1) is what KV
    caches, cached prompts and activations take of the memory that the engine may use beside its weights.
    """

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
    """What one worker says of itself. Times are Redis's clock in Unix seconds.

    ``hardware`` is :class:`tasks.hardware.Hardware` and ``usage`` :class:`tasks.hardware.usage.Usage` as dictionaries;
    ``slots`` and ``busy`` count requests by queue; ``engine_restarts`` counts engines that died or stalled since the start,
    each replaced at its next request; ``budget_bytes`` is what all its engines may take together, and ``room_bytes`` what the
    largest model that it could load may need; ``metrics`` is :meth:`tasks.metrics.collector.MetricsCollector.snapshot`.
    """

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


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


#: What a value must be, by the annotation of its field.
_CHECKS: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "int": _is_count,
    "float": _is_number,
    "bool": lambda value: isinstance(value, bool),
    "Status": lambda value: value in get_args(Status),
    "list[str]": lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value),
    "dict[str, int]": lambda value: isinstance(value, dict) and all(_is_count(each) for each in value.values()),
    "dict[str, Any]": lambda value: isinstance(value, dict),
    "list[EngineState]": lambda value: isinstance(value, list),
    "Literal['downloading', 'loading', 'ready', 'ending', 'failed']": lambda value: (
        value in ("downloading", "loading", "ready", "ending", "failed")
    ),
}
_RECORD = {each.name: str(each.type).replace('"', "'") for each in fields(WorkerRecord)}
_ENGINE = {each.name: str(each.type).replace('"', "'") for each in fields(EngineState)}


def encode_record(record: WorkerRecord) -> str:
    """The record as JSON."""
    return json.dumps({"v": VERSION, **asdict(record)}, ensure_ascii=False, separators=(",", ":"))


def decode_record(node: str, payload: str | bytes) -> WorkerRecord | Unreadable:
    """The record in this JSON; unknown fields are dropped, and what cannot be read says why."""
    try:
        values = json.loads(payload)
        version = values["v"]
        if version > VERSION:
            return Unreadable(node, f"written by a newer version (record version {version}, this is {VERSION})")
        known = _known(values, _RECORD)
        known["engines"] = [EngineState(**_known(each, _ENGINE)) for each in known.get("engines", [])]
        record = WorkerRecord(**known)
    # A document that is nested too deeply is a RecursionError.
    except (ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError) as error:
        return Unreadable(node, f"not a worker's record ({type(error).__name__}: {error})"[:300])
    if record.node != node:
        return Unreadable(node, f"the record of another worker, {record.node!r}"[:300])
    return record


def _known(values: dict[str, Any], types: dict[str, str]) -> dict[str, Any]:
    """The fields that this version knows.

    Raises:
        TypeError: one of them has a value of another type.
    """
    known = {name: value for name, value in values.items() if name in types}
    for name, value in known.items():
        kind = types[name]
        if value is None and kind.endswith(" | None"):
            continue
        if not _CHECKS[kind.removesuffix(" | None")](value):
            raise TypeError(f"{name} is {value!r:.50}, not {kind}")
    return known

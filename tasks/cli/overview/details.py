"""One worker in full, as lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.cli.overview.words import NOTHING, clean, gib, milliseconds, percent, rate, tiers
from tasks.fleet.words import age

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tasks.fleet.state import WorkerView
    from tasks.messages.registry import EngineState, WorkerRecord

TITLE_WIDTH = 14
DISTRIBUTIONS = {
    "first token": "first_token_ms",
    "between tokens": "inter_token_ms",
    "latency": "latency_ms",
    "queue wait": "queue_wait_ms",
}


def worker_lines(worker: WorkerView) -> Iterator[str]:
    """All that a worker says of itself."""
    record, metrics = worker.record, worker.record.metrics
    yield from _fields(
        {
            "worker": record.node,
            "status": f"{worker.condition}{f': {worker.reason}' if worker.reason else ''}",
            "up for": age(max(0.0, record.beat_at - record.started_at)),
            "last beat": f"{age(worker.beat_age_s)} ago",
            "version": f"{record.version or NOTHING}, process {record.pid}, boot {record.boot}",
            "tiers": tiers(record.queues),
            "queues": ", ".join(_queue(name, record.busy, record.slots) for name in record.queues) or NOTHING,
            "slots": f"{sum(record.busy.values())} of {record.concurrency} busy",
            "for models": f"{gib(_reserved(record))} of {gib(record.budget_bytes)} GB reserved",
            **_machine(record.hardware, record.usage),
            "tokens/s": rate(metrics.get("tokens_per_s")),
        }
    )
    for title, name in DISTRIBUTIONS.items():
        values = metrics.get(name)
        if isinstance(values, dict):
            yield from _fields({title: _percentiles(values)})
    totals = metrics.get("totals")
    if isinstance(totals, dict):
        yield from _fields({"requests": _counts(totals)})
    lanes = metrics.get("lanes")
    if isinstance(lanes, dict):
        yield from _fields({"lanes": _lanes(lanes)})
    for engine in record.engines:
        yield from _fields({"model": _engine(engine)})


def departed_lines(record: Mapping[str, Any], now: float) -> Iterator[str]:
    """The last words of a worker that is gone: a record out of the history."""
    at = record.get("departed_at")
    yield from _fields(
        {
            "worker": record.get("node"),
            "status": record.get("departed"),
            "since": f"{age(max(0.0, now - at))} ago" if isinstance(at, int | float) else NOTHING,
            "last status": f"{record.get('status')} {record.get('reason') or ''}",
            "boot": record.get("boot"),
        }
    )


def _fields(values: Mapping[str, Any]) -> Iterator[str]:
    for title, value in values.items():
        yield f"{title:<{TITLE_WIDTH}}  {clean(value).strip()}"


def _reserved(record: WorkerRecord) -> int:
    return sum(engine.reserved_bytes for engine in record.engines)


def _queue(name: str, busy: Mapping[str, int], slots: Mapping[str, int]) -> str:
    return f"{name} {busy.get(name, 0)}/{slots[name]}" if name in slots else name


def _machine(hardware: Mapping[str, Any], usage: Mapping[str, Any]) -> dict[str, str]:
    cores = f", {hardware['gpu_cores']} GPU cores" if hardware.get("gpu_cores") else ""
    used, total = usage.get("memory_used_bytes"), usage.get("memory_total_bytes")
    return {
        "chip": f"{hardware.get('chip') or NOTHING}{cores}, "
        f"{hardware.get('accelerator') or NOTHING}{', simulated' if hardware.get('overridden') else ''}",
        "system": f"{hardware.get('os_name') or NOTHING} {hardware.get('os_version') or ''}",
        "CPU, GPU": f"{percent(usage.get('cpu_percent'))}, {percent(usage.get('gpu_percent'))}",
        "memory": f"{gib(used)} of {gib(total)} GB",
    }


def _percentiles(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {milliseconds(values.get(name))}" for name in ("p50", "p95", "p99"))


def _counts(totals: Mapping[str, Any]) -> str:
    return ", ".join(f"{totals[name]} {name}" for name in ("succeeded", "failed", "cancelled") if name in totals)


def _lanes(counts: Mapping[str, Any]) -> str:
    """Describe the requests taken from the worker's own lanes and from those of others, and those that wait in its own."""
    taken = f"{counts.get('hits', NOTHING)} taken from its own, {counts.get('steals', NOTHING)} from others'"
    return f"{taken}, {counts.get('waiting', NOTHING)} waiting"


def _engine(engine: EngineState) -> str:
    """A model's state and size and, once it is loaded, its batch, its speed, and since when it idles."""
    about = [f"{engine.model} {engine.state}{' (pinned)' if engine.pinned else ''}"]
    if engine.fraction is not None:
        about.append(percent(100 * engine.fraction))
    if engine.memory_bytes is not None or engine.reserved_bytes:
        about.append(f"{gib(engine.memory_bytes)} of {gib(engine.reserved_bytes)} GB")
    if engine.state in ("ready", "ending"):
        about.append(f"{engine.running} running, {engine.waiting} waiting, {rate(engine.tokens_per_s)} tokens/s")
    if engine.idle_s is not None:
        about.append(f"idle for {age(engine.idle_s)}")
    return ", ".join(about) + (f": {engine.reason}" if engine.reason else "")

"""Fleet: how fast a worker is registered, what its heartbeat costs, and how even it is."""

from __future__ import annotations

import json
import signal
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.bench import Row
from benchmarks.contenders.ours import send
from benchmarks.figures import at_most, p50, p99
from benchmarks.load import greedy
from benchmarks.processes import Worker, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from benchmarks.bench import Bench
    from benchmarks.figures import Findings, Metrics
    from tasks.client.result import GenerateResult

SLOTS = 32
MODEL = "fake:20"
#: More than fit into the time that is measured; what still runs then is cancelled.
MAX_TOKENS = 8000


def measure(bench: Bench, found: Findings) -> None:
    """Starts, then two workers under load: one that beats often, one that beats as it does by default."""
    _measure_start(bench, found)
    _measure_cost(bench, found)
    _measure_interval(bench, found)


def _measure_start(bench: Bench, found: Findings) -> None:
    def start(_: int) -> Metrics:
        with _stamped(bench, None, {}) as (worker, stamps):
            record = worker.wait_for(lambda record: record.started_at and record, "registered")
            ready_at = _read(stamps)["ready_at"]
            return {
                "ready_ms": (record.started_at - ready_at) * 1000,
                "start_s": record.started_at - worker.started_at,
            }

    samples = bench.in_turns("fleet, start", {"worker": start})
    found.figure("worker_ready to record", samples.values("worker", "ready_ms"), "ms", at_most(100))
    found.figure("process start to record", samples.values("worker", "start_s"), "s", at_most(2))


def _measure_cost(bench: Bench, found: Findings) -> None:
    """Beats at 50 a second, so that a thousand do not take more than an hour."""
    beats = bench.size(1000, 50)
    with _stamped(bench, MODEL, {"CELERY_MLX_HEARTBEAT_S": "0.02"}) as (worker, stamps), _load(worker):
        bench.say(f"fleet, {beats} heartbeats under {SLOTS} busy slots")
        first = worker.wait_for(lambda record: record.metrics["beat_ms"], "a heartbeat")["count"]
        cost = worker.wait_for(lambda record: _after(record.metrics["beat_ms"], first + beats), f"{beats} heartbeats")
        signals = wait_for(lambda: _read(stamps)["costs_ms"][-beats:], "heartbeat_sent", worker.process)
        trips = [_time_ping(bench) for _ in range(200)]
    about = f"over {beats} beats under {SLOTS} busy slots"
    found.figure(f"heartbeat on Celery's own thread {about}, p99", [p99(signals)], "ms", at_most(1))
    found.figure(f"heartbeat in all {about}, p50", [cost["p50"]], "ms")
    found.figure(f"heartbeat in all {about}, p99", [cost["p99"]], "ms", at_most(10))
    found.figure("heartbeat in all, p50 / one round trip to Redis, p50", [cost["p50"] / p50(trips)])
    found.measured("heartbeat in all, longest", [cost["max"]], "ms")
    found.measured("one round trip to Redis, p50", [p50(trips)], "ms")


def _after(cost: dict[str, float], count: float) -> dict[str, float] | None:
    return cost if cost["count"] >= count else None


def _time_ping(bench: Bench) -> float:
    started = time.perf_counter()
    bench.client.ping()
    return (time.perf_counter() - started) * 1000


def _measure_interval(bench: Bench, found: Findings) -> None:
    interval_s = 1.0 if bench.quick else 5.0
    settings = {"CELERY_MLX_HEARTBEAT_S": f"{interval_s:g}", "CELERY_MLX_DRAIN_TIMEOUT_S": "60"}
    with _stamped(bench, MODEL, settings) as (worker, _), _load(worker) as results:
        bench.say(f"fleet, heartbeats at {interval_s:g} s under load")
        beats = _watch(worker, 4 * interval_s + 0.5)
        worker.signal(signal.SIGTERM)
        bench.say(f"fleet, heartbeats at {interval_s:g} s during a drain")
        draining = _watch(worker, 3 * interval_s + 0.5)
        for result in results:
            result.revoke(terminate=True)
    start = beats[0]
    for phase, seen in (("under load", beats[1:]), ("during a drain", draining)):
        late = _deviation(seen, start, interval_s) * 1000
        about = f"heartbeat every {interval_s:g} s {phase}: farthest from its time"
        found.figure(about, [late], "ms", at_most(200))


def _watch(worker: Worker, seconds: float) -> list[float]:
    """The times of all beats by Redis's clock; the first may be from before."""
    seen: list[float] = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        record = worker.record()
        if record is not None and record.beat_at not in seen:
            seen.append(record.beat_at)
        time.sleep(0.02)
    return seen


def _deviation(seen: list[float], start: float, interval_s: float) -> float:
    """How far the worst beat is from the grid. A change of state makes beats between; for each due time the nearest counts."""
    first, last = round((seen[0] - start) / interval_s), round((seen[-1] - start) / interval_s)
    due = [start + number * interval_s for number in range(first + 1, last + 1)]
    return max((min(abs(at - moment) for at in seen) for moment in due), default=0.0)


@contextmanager
def _stamped(bench: Bench, model: str | None, settings: Mapping[str, str]) -> Iterator[tuple[Worker, Path]]:
    stamps = bench.folder / f"stamps-{time.monotonic_ns()}.json"
    launcher = ("-m", "benchmarks.contenders.stamped", str(stamps))
    worker = Worker(bench, model, SLOTS, settings, launcher)
    try:
        worker.wait_until_ready()
        yield worker, stamps
    finally:
        worker.stop()


def _read(stamps: Path) -> Any:
    return json.loads(stamps.read_text())


@contextmanager
def _load(worker: Worker) -> Iterator[list[GenerateResult]]:
    """Every slot generates for as long as the block runs."""
    results = [send(request, MODEL) for request in greedy(SLOTS, 3, MAX_TOKENS, worker.node)]
    worker.wait_for(lambda record: sum(engine.running for engine in record.engines) == SLOTS, "all slots busy")
    yield results
    for result in results:
        result.revoke(terminate=True)


ROW = Row("fleet", "How fast a worker is registered, what its heartbeat costs, and how even it is.", measure)

"""Memory: of a producer, a worker and its engine, and of each request that waits or runs."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import psutil

from benchmarks.bench import Row
from benchmarks.contenders.naive import stock_worker
from benchmarks.contenders.ours import asker, send
from benchmarks.load import Request, greedy
from benchmarks.processes import worker
from tasks.demo.bundled import MODEL
from tasks.server import keys

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.figures import Findings, Metrics
    from benchmarks.processes import Worker

MIB = 1024 * 1024
OURS = """
import psutil
from tasks import generate
list(generate.delay(prompt="one", model="fake:0", max_tokens=1).stream())
print(psutil.Process().memory_info().rss)
"""
BARE = """
import psutil
from benchmarks.contenders.naive_app import app
app.send_task("benchmarks.nothing", queue="nobody")
print(psutil.Process().memory_info().rss)
"""


def measure(bench: Bench, found: Findings) -> None:
    """Resident bytes, each beside what plain Celery takes for the same part."""
    running, waiting = bench.size(32, 8), bench.size(500, 50)
    with worker(bench, "fake:20", running) as ours, stock_worker(bench) as stock:
        asker("fake:20")(Request(prompt="one", max_tokens=2))
        producers = bench.in_turns("memory, producer", {"ours": lambda _: _rss(OURS), "bare": lambda _: _rss(BARE)})
        workers = bench.in_turns(
            "memory, worker", {"ours": lambda _: _resident(ours.pid), "bare": lambda _: _resident(stock)}
        )
        requests = bench.in_turns("memory, requests", {"ours": lambda number: _fill(bench, ours, running, number)})
    queued = bench.in_turns("memory, waiting", {"ours": lambda number: _queue(bench, waiting, number)})
    with worker(bench, MODEL, 16) as real:
        engine = bench.in_turns("memory, engine", {"ours": lambda number: _generate(real, number)})
    found.figure("producer after its first request / one of plain Celery", producers.ratio("ours", "bare", "mib"))
    found.figure(
        "idle worker without its engine / a thread worker of plain Celery", workers.ratio("ours", "bare", "mib")
    )
    found.figure(
        "engine with the bundled model / what MLX holds", engine.ratio("ours", "ours", "resident_mib", "held_mib")
    )
    found.measured("producer", producers.values("ours", "mib"), "MiB")
    found.measured("producer of plain Celery", producers.values("bare", "mib"), "MiB")
    found.measured("idle worker without its engine", workers.values("ours", "mib"), "MiB")
    found.measured("thread worker of plain Celery", workers.values("bare", "mib"), "MiB")
    found.measured("engine with the bundled model", engine.values("ours", "resident_mib"), "MiB")
    found.measured("fake engine", requests.values("ours", "engine_mib"), "MiB")
    found.measured(f"worker, each of {running} running requests", requests.values("ours", "running_kib"), "KiB")
    found.measured(f"Redis, each of {waiting} waiting requests", queued.values("ours", "waiting_kib"), "KiB")
    found.measured("Redis, each token of a journal", requests.values("ours", "token_bytes"), "bytes")


def _rss(program: str) -> Metrics:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    return {"mib": int(done.stdout.split()[-1]) / MIB}


def _resident(pid: int) -> Metrics:
    return {"mib": psutil.Process(pid).memory_info().rss / MIB}


def _fill(bench: Bench, ours: Worker, running: int, number: int) -> Metrics:
    """Fill every slot, and see what the worker takes more, and what the journals take."""
    before = _resident(ours.pid)["mib"]
    results = [send(request, "fake:20") for request in greedy(running, 3, 200, "memory", number)]
    ours.wait_for(lambda record: sum(engine.running for engine in record.engines) == running, "full")
    after = _resident(ours.pid)["mib"]
    for result in results:
        result.get(timeout=60)
    sizes: list[Any] = [bench.client.memory_usage(keys.stream(result.id), samples=0) for result in results]
    return {
        "running_kib": (after - before) * 1024 / running,
        "engine_mib": _resident(ours.engine_pid())["mib"],
        "token_bytes": sum(sizes) / len(sizes) / 200,
    }


def _queue(bench: Bench, waiting: int, number: int) -> Metrics:
    """Send requests that nobody takes."""
    before = bench.client.info("memory")["used_memory"]
    for request in greedy(waiting, 16, 16, "queue", number):
        send(request, "fake:20")
    after = bench.client.info("memory")["used_memory"]
    bench.client.flushall()
    return {"waiting_kib": (after - before) / 1024 / waiting}


def _generate(real: Worker, number: int) -> Metrics:
    asker(MODEL)(greedy(1, 16, 8, "engine", number)[0])
    record = real.wait_for(lambda record: record.engines and record.engines[0].memory_bytes and record, "an engine")
    resident = _resident(real.engine_pid())["mib"]
    return {"resident_mib": resident, "held_mib": record.engines[0].memory_bytes / MIB}


ROW = Row("memory", "Resident memory of each part, and what each request adds.", measure)

"""A fleet that exists in Redis alone: records, leases and connections of many workers, without a model or a process of theirs.

    python benchmarks/simulated_fleet.py --workers 500 --seconds 60
    celery -A tasks fleet

Each worker has a real connection, named as a keeper names it, and beats every five seconds, so the sweep takes it for alive.
With ``--measure`` it prints what a look at the fleet and a round of the sweep cost, and ends.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from tasks.cli.overview import plain
from tasks.fleet.reading import read_state
from tasks.hardware import Hardware
from tasks.journal.writer import Journal
from tasks.messages.registry import EngineState, WorkerRecord
from tasks.models.capabilities import capabilities
from tasks.registry import Registry
from tasks.registry.lifeline import Lifeline
from tasks.server.connection import connect
from tasks.sweep.ends import Ends
from tasks.sweep.sweep import Sweep
from worker_config.settings import Settings, current_settings
from worker_config.units import GIB

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

#: Chip, variant, GPU cores, memory in GB.
MACHINES = (
    ("Apple M1", "Base", 8, 16),
    ("Apple M2", "Base", 10, 16),
    ("Apple M2 Pro", "Pro", 19, 32),
    ("Apple M3 Max", "Max", 40, 64),
    ("Apple M4 Pro", "Pro", 20, 48),
    ("Apple M3 Ultra", "Ultra", 80, 192),
)
MODELS = ("smollm2-135m", "qwen3-4b-4bit", "llama-3.1-8b-4bit", "gemma-3-27b-4bit", "qwen3-32b-4bit")
INTERVAL_S = 5.0
LEASE_MS = 15_000


class SimulatedWorker:
    """One worker that says plausible things of itself and beats."""

    def __init__(self, client: redis.Redis, number: int) -> None:
        chip, variant, gpu_cores, memory_gb = MACHINES[number % len(MACHINES)]
        self._hardware = Hardware(
            chip=chip,
            generation=chip.split()[1],
            variant=variant,
            gpu_cores=gpu_cores,
            cpu_cores_performance=8,
            cpu_cores_efficiency=4,
            cpu_cores=12,
            memory_bytes=memory_gb * GIB,
            gpu_memory_bytes=None,
            os_name="macOS",
            os_version="15.5",
            accelerator="metal",
            engine_accelerator="metal",
            sources={},
            overridden=True,
        )
        offers = capabilities(self._hardware)
        self._slots = dict(offers.slots_by_queue)
        self._random = random.Random(number)
        # A name of this run's own: those of an earlier one, which was killed, are the sweep's to remove.
        self.node = f"mac-{number:03}@sim-{os.getpid():x}"
        self.boot = f"{number:x}"
        self._registry = Registry(client)
        self._lifeline = Lifeline(client, f"{self.node}#{self.boot}")

    def beat(self) -> None:
        """Register, or refresh the record and its lease."""
        client = self._lifeline.connect()
        self._registry.beat(self.record(), LEASE_MS, client_id=self._lifeline.client_id, client=client)

    def leave(self) -> None:
        """Take the record out of the registry."""
        self._registry.leave(self.record())
        self._lifeline.close()

    def record(self) -> WorkerRecord:
        """The record as it would be now."""
        draw = self._random
        busy = {queue: draw.randint(0, slots) for queue, slots in self._slots.items()}
        tokens_per_s = 40.0 * sum(busy.values()) * draw.uniform(0.8, 1.2)
        first_token_ms = draw.uniform(60, 900)
        model = MODELS[len(self._slots) - 1]
        trouble = draw.random() < 0.02
        return WorkerRecord(
            node=self.node,
            boot=self.boot,
            status="degraded" if trouble else "online",
            reason=f"{model} failed to load 3 times" if trouble else "",
            pid=os.getpid(),
            version="simulated",
            concurrency=sum(self._slots.values()),
            queues=list(self._slots),
            slots=self._slots,
            busy=busy,
            models=[model],
            engines=[EngineState(model=model, state="ready", running=sum(busy.values()), tokens_per_s=tokens_per_s)],
            hardware={name: getattr(self._hardware, name) for name in Hardware.__slots__},
            usage=self._usage(),
            metrics={
                "tokens_per_s": tokens_per_s,
                "first_token_ms": {"p50": first_token_ms / 2, "p95": first_token_ms, "p99": first_token_ms * 1.5},
                "totals": {"succeeded": draw.randint(0, 10_000), "failed": 0, "cancelled": 3},
            },
        )

    def _usage(self) -> dict[str, Any]:
        total = self._hardware.memory_bytes
        return {
            "cpu_percent": self._random.uniform(5, 60),
            "gpu_percent": self._random.uniform(20, 100),
            "memory_used_bytes": int(total * self._random.uniform(0.3, 0.8)),
            "memory_total_bytes": total,
        }


def keep_beating(workers: list[SimulatedWorker], until: float) -> None:
    """Beat for all, evenly spread over the interval, until a monotonic time."""
    step_s = INTERVAL_S / len(workers)
    due = time.monotonic()
    while due < until:
        for worker in workers:
            time.sleep(max(0.0, due - time.monotonic()))
            worker.beat()
            due += step_s
            if due >= until:
                return


def measure(client: redis.Redis, rounds: int = 20) -> None:
    """Print what looking at this fleet costs."""
    sweep = Sweep(client, Ends(Journal(client), _NoResults()), Settings(), "benchmark")
    looks: dict[str, Callable[[], object]] = {
        "read_state": lambda: read_state(client),
        "read_state, and the whole overview as text": lambda: list(plain.lines(read_state(client))),
        "one round of the sweep": sweep.round,
    }
    for name, look in looks.items():
        look()
        costs = []
        for _ in range(rounds):
            started = time.perf_counter()
            look()
            costs.append((time.perf_counter() - started) * 1000)
        print(f"{name}: p50 {statistics.median(costs):.1f} ms, max {max(costs):.1f} ms")
    sweep.stop()


class _NoResults:
    def final_entry(self, task_id: str) -> None:
        """No request has a result here."""

    def fail(self, task_id: str, error: Exception) -> None:
        """Nor gets one."""

    def revoke(self, task_id: str, message: str) -> None:
        """Nor is one revoked."""


def main() -> None:
    """Simulate, and clean up at the end or when interrupted."""
    parser = argparse.ArgumentParser(description="Simulate the records of many workers.")
    parser.add_argument("--workers", type=int, default=500, help="how many (1-500)")
    parser.add_argument("--seconds", type=float, default=3600.0, help="for how long")
    parser.add_argument("--redis", default=current_settings().redis_url, help="URL of the Redis to fill")
    parser.add_argument("--measure", action="store_true", help="print what looking at the fleet costs, and end")
    arguments = parser.parse_args()
    if not 1 <= arguments.workers <= 500:
        parser.error(f"--workers {arguments.workers}: expected 1 to 500")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    client = connect(arguments.redis)
    with ExitStack() as stack:
        workers = [SimulatedWorker(client, number) for number in range(arguments.workers)]
        for worker in workers:
            worker.beat()
            stack.callback(worker.leave)
        print(f"{len(workers)} workers registered", flush=True)
        if arguments.measure:
            measure(client)
            return
        try:
            keep_beating(workers, time.monotonic() + arguments.seconds)
        except KeyboardInterrupt:
            print("interrupted", flush=True)


if __name__ == "__main__":
    main()

"""Faults: how fast a cancelled request's slot is free, and how long streams pause when their worker is killed."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from benchmarks.bench import Row
from benchmarks.contenders.ours import read, send
from benchmarks.figures import at_most, p50, p99
from benchmarks.load import Reading, Request, greedy
from benchmarks.processes import BenchmarkError, Worker, beat, worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.bench import Bench
    from benchmarks.figures import Findings, Metrics
    from tasks.client.result import GenerateResult

STEP_MS = 50
STREAMS = 8
PATIENCE_S = 60.0


def measure(bench: Bench, found: Findings) -> None:
    """Revoke on a worker with one slot, then kill -9 of one worker of two."""
    _measure_revoke(bench, found)
    _measure_kill(bench, found)


def _measure_revoke(bench: Bench, found: Findings) -> None:
    model = f"fake:{STEP_MS}"
    with worker(bench, model, 1):
        count = bench.size(10, 3)

        def revoke(number: int) -> Metrics:
            samples = [_revoke_one(model, (number, sample)) for sample in range(count)]
            return {name: p50([sample[name] for sample in samples]) for name in samples[0]}

        samples = bench.in_turns("faults, revoke", {"ours": revoke})
    ends, frees = samples.values("ours", "end_ms"), samples.values("ours", "free_ms")
    found.figure(f"revoke to its reader's last chunk / a step ({STEP_MS} ms), p50", [end / STEP_MS for end in ends])
    found.figure("revoke to the first token of the request that waited for its slot, p50", frees, "ms")
    found.measured("revoke to its reader's last chunk, p50", ends, "ms")


def _revoke_one(model: str, seed: object) -> Metrics:
    with _reading(greedy(1, 3, 4000, seed), model) as (results, readings):
        waiting = Reading(time.perf_counter())
        next_one = threading.Thread(
            target=read, args=(send(Request(prompt="one", max_tokens=1), model), waiting), daemon=True
        )
        next_one.start()
        _wait(lambda: len(readings[0].arrivals) > 1)
        started = time.perf_counter()
        results[0].revoke(terminate=True)
        next_one.join(PATIENCE_S)
        _wait(lambda: readings[0].ended_at)
        return {"end_ms": (readings[0].ended_at - started) * 1000, "free_ms": (waiting.arrivals[0] - started) * 1000}


def _measure_kill(bench: Bench, found: Findings) -> None:
    """Each repeat kills the worker that runs; another one is there by then, and is the next to be killed."""
    model = "fake:20"
    with ExitStack() as stack:
        stack.enter_context(beat(bench))
        alive = [stack.enter_context(worker(bench, model, STREAMS))]

        def kill(number: int) -> Metrics:
            victim = alive[-1]
            with _reading(greedy(STREAMS, 3, 4000, number), model) as (results, readings):
                _wait(lambda: all(len(reading.arrivals) > 4 for reading in readings))
                alive.append(stack.enter_context(worker(bench, model, STREAMS)))
                pauses = _pauses(victim, readings)
                for result in results:
                    result.revoke(terminate=True)
            return {"p50_ms": p50(pauses), "p99_ms": p99(pauses)}

        samples = bench.in_turns("faults, kill -9", {"ours": kill})
    about = f"kill -9 of one of two workers with {STREAMS} streams: to the next token of each"
    found.figure(f"{about}, p50", samples.values("ours", "p50_ms"), "ms")
    found.figure(f"{about}, p99", samples.values("ours", "p99_ms"), "ms", at_most(2000))


def _pauses(victim: Worker, readings: list[Reading]) -> list[float]:
    started = time.perf_counter()
    victim.signal(signal.SIGKILL)
    # What had been published by then is still on its way for a moment.
    time.sleep(0.1)
    heard = [len(reading.arrivals) for reading in readings]
    _wait(lambda: all(len(reading.arrivals) > before for reading, before in zip(readings, heard, strict=True)))
    return [(reading.arrivals[before] - started) * 1000 for reading, before in zip(readings, heard, strict=True)]


@contextmanager
def _reading(requests: list[Request], model: str) -> Iterator[tuple[list[GenerateResult], list[Reading]]]:
    """Requests that run, each with a reader; all must have ended, or been cancelled, when the block ends."""
    results = [send(request, model) for request in requests]
    readings = [Reading(time.perf_counter()) for _ in results]
    threads = [threading.Thread(target=read, args=pair, daemon=True) for pair in zip(results, readings, strict=True)]
    for thread in threads:
        thread.start()
    yield results, readings
    for thread in threads:
        thread.join(PATIENCE_S)


def _wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise BenchmarkError(f"a stream did not go on within {PATIENCE_S:g} s")
        time.sleep(0.001)


ROW = Row(
    "faults", "How fast a cancelled request frees its slot, and how long streams pause when their worker dies.", measure
)

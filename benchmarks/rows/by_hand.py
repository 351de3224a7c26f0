"""A bulk job's time beside that of a program which sends the same lines itself: three workers that compute nothing."""

from __future__ import annotations

import json
import sys
import time
from collections import deque
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from benchmarks.bench import Row
from benchmarks.figures import at_most
from benchmarks.processes import BenchmarkError, start, wait_for, worker
from tasks.errors import QueueFull

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.bench import Bench
    from benchmarks.figures import Findings, Metrics
    from tasks.client.result import GenerateResult

MODEL = "fake:0"
WORKERS, SLOTS = 3, 16
LINES, TOKENS = 10_000, 5


def measure(bench: Bench, found: Findings) -> None:
    """The command, from its first line on, and the program, in turns."""
    count = bench.size(LINES, 60)
    source = bench.folder / "by-hand.jsonl"
    source.write_text(
        "".join(json.dumps({"prompt": f"line {n}", "model": MODEL, "max_tokens": TOKENS}) + "\n" for n in range(count))
    )
    with ExitStack() as stack:
        for _ in range(WORKERS):
            stack.enter_context(worker(bench, MODEL, SLOTS))
        _by_hand(source)
        samples = bench.in_turns(
            f"by hand, {count} lines",
            {"bulk": lambda _: _bulk(bench, source, count), "by hand": lambda _: _by_hand(source)},
        )
    about = f"{count} lines of {TOKENS} tokens, {WORKERS} workers of {SLOTS} slots"
    found.figure(f"{about}: time, bulk / by hand", samples.ratio("bulk", "by hand", "seconds"), target=at_most(1.1))
    for name in ("bulk", "by hand"):
        found.measured(f"{about}: {name}", samples.values(name, "lines_per_s"), "lines/s")


def _bulk(bench: Bench, source: Path, count: int) -> Metrics:
    target = source.with_name(f"by-hand-{time.monotonic_ns()}.out")
    command = [sys.executable, "-m", "celery", "-A", "tasks", "bulk", "run", str(source), str(target), "--quiet"]
    process = start(bench, "bulk", command)
    try:
        # A program of one's own is running already when it sends its first line.
        wait_for(target.exists, "the job", process)
        began = time.perf_counter()
        while process.running:
            time.sleep(0.01)
    finally:
        process.stop()
    if (done := target.read_bytes().count(b"\n")) != count:
        raise BenchmarkError(f"{done} of {count} lines: {process.log_tail(5)}")
    return _metrics(count, began)


def _by_hand(source: Path) -> Metrics:
    """Send until the queue is full, then wait for the oldest answer: what examples/batch.py does."""
    from tasks import generate

    waiting: deque[GenerateResult] = deque()
    count = 0
    began = time.perf_counter()
    with source.open() as lines, source.with_name("by-hand.out").open("w") as output:

        def write_oldest() -> None:
            nonlocal count
            answer: Any = waiting.popleft().get(timeout=120)
            output.write(json.dumps({"text": answer["text"]}) + "\n")
            count += 1

        for line in lines:
            while True:
                try:
                    waiting.append(generate.delay(**json.loads(line)))
                    break
                except QueueFull:
                    write_oldest()
        while waiting:
            write_oldest()
    return _metrics(count, began)


def _metrics(count: int, began: float) -> Metrics:
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "lines_per_s": count / seconds}


ROW = Row("by-hand", "A bulk job's time beside that of a program which sends the same lines itself.", measure)

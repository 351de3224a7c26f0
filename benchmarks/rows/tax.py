"""Streaming tax: the same work with nobody reading, with one reader for each request, and with four."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.bench import Row
from benchmarks.contenders.ours import read, send
from benchmarks.figures import at_most
from benchmarks.load import Reading, Request, greedy
from benchmarks.processes import worker
from tasks.demo.bundled import MODEL

if TYPE_CHECKING:
    from benchmarks.bench import Bench, Measure
    from benchmarks.figures import Findings, Metrics, Target

AT_ONCE = 16
RESULT_TIMEOUT_S = 300


def measure(bench: Bench, found: Findings) -> None:
    """On the bundled model, and on a fake engine that is as fast as it can be, where nothing hides the cost."""
    at_once = bench.size(AT_ONCE, 4)
    with worker(bench, MODEL, at_once):
        _compare(bench, found, "bundled model", MODEL, (at_once, 16, bench.size(32, 4)), at_most(3, 1))
    with worker(bench, "fake:0", at_once):
        _compare(bench, found, "fake engine at full speed", "fake:0", (at_once, 3, bench.size(500, 50)))


def _compare(
    bench: Bench, found: Findings, about: str, model: str, load: tuple[int, int, int], target: Target | None = None
) -> None:
    """``load``: requests, and the tokens of each one's prompt and answer. No prompt is sent twice: an engine keeps them."""
    _work(greedy(*load, model, "warm"), model, 1)
    readers = {"nobody reads": 0, "one reader each": 1, "four readers each": 4}

    def run(count: int, number: int) -> Metrics:
        return _work(greedy(*load, model, count, number), model, count)

    contenders: dict[str, Measure] = {name: partial(run, count) for name, count in readers.items()}
    samples = bench.in_turns(f"tax, {about}", contenders)
    for name in list(readers)[1:]:
        tax = [100 * (ratio - 1) for ratio in samples.ratio(name, "nobody reads", "seconds")]
        judged = target if name == "one reader each" else None
        found.figure(f"{about}: time taken, {name} / nobody reads, minus 1", tax, "%", judged)
    for name in readers:
        found.measured(f"{about}, {name}", samples.values(name, "seconds"), "s")


def _work(requests: list[Request], model: str, readers: int) -> Metrics:
    """Seconds until all results are there, which is how one knows where nobody reads."""
    started = time.perf_counter()
    results = [send(request, model) for request in requests]
    threads = [
        threading.Thread(target=read, args=(result, Reading(started)), daemon=True)
        for result in results
        for _ in range(readers)
    ]
    for thread in threads:
        thread.start()
    for result in results:
        result.get(timeout=RESULT_TIMEOUT_S)
    seconds = time.perf_counter() - started
    for thread in threads:
        thread.join()
    return {"seconds": seconds}


ROW = Row("tax", "Streaming tax: the same requests with nobody reading, with one reader each, and with four.", measure)

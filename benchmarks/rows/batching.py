"""Batching: what it gains, and what a running stream pays when another request arrives or ends."""

from __future__ import annotations

import statistics
import threading
import time
from itertools import pairwise
from typing import TYPE_CHECKING

from benchmarks.bench import Row
from benchmarks.contenders.ours import asker, read, send
from benchmarks.figures import at_least, at_most
from benchmarks.load import Reading, Request, closed_loop, endless, greedy, words
from benchmarks.parts.engine import loaded_engine
from benchmarks.processes import BenchmarkError, worker
from tasks.demo.bundled import MODEL
from tasks.messages.engine import EngineConfig, Finished, Sampling, StepOutput, Submit, Tokens
from worker_config.cache import bundled_folder

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.figures import Findings, Metrics
    from tasks.worker.engines.process import EngineProcess

PROMPT_CACHE_BYTES = 1 << 28
PATIENCE_S = 120.0


def measure(bench: Bench, found: Findings) -> None:
    """On a worker with the bundled model, on its engine alone, and on a worker with a timed fake engine."""
    with worker(bench, MODEL, 16):
        asker(MODEL)(Request(prompt=words(4, "warm"), max_tokens=2))
        _measure_speed_up(bench, found)
        _measure_long_prompt(bench, found)
    _measure_finish(bench, found)
    _measure_timed(bench, found)


def _measure_speed_up(bench: Bench, found: Findings) -> None:
    count, tokens = bench.size(16, 4), bench.size(16, 4)
    ask = asker(MODEL)
    samples = bench.in_turns(
        "batching, speed-up",
        {
            "at once": lambda number: closed_loop(ask, greedy(count, 12, tokens, "once", number), count).metrics(),
            "one by one": lambda number: closed_loop(ask, greedy(count, 12, tokens, "one", number), 1).metrics(),
        },
    )
    ratio = samples.ratio("at once", "one by one", "tokens_per_s")
    found.figure(f"tokens/s, {count} at once / the same one after another", ratio, target=at_least(5))
    for name in ("at once", "one by one"):
        found.measured(f"{count} requests {name}", samples.values(name, "tokens_per_s"), "tokens/s")


def _measure_long_prompt(bench: Bench, found: Findings) -> None:
    length, streams = bench.size(1500, 200), bench.size(4, 2)
    samples = bench.in_turns(
        "batching, a long prompt arrives",
        {
            "alone": lambda number: {"first_ms": asker(MODEL)(_long(length, "alone", number)).first_ms},
            "beside streams": lambda number: _crowd(length, streams, number),
        },
    )
    about = f"a {length}-token prompt arrives beside {streams} streams"
    gaps = samples.ratio("beside streams", "beside streams", "worst_ms", "step_ms")
    found.figure(f"{about}: their worst gap / their median step", gaps, target=at_most(12, 5))
    firsts = samples.ratio("beside streams", "alone", "first_ms")
    found.figure(f"{about}: its first token / alone", firsts, target=at_most(1.4, 1.15))
    for metric, what in (("step_ms", "median step before"), ("worst_ms", "worst gap"), ("first_ms", "its first token")):
        found.measured(f"{about}, {what}", samples.values("beside streams", metric), "ms")
    found.measured(f"a {length}-token prompt alone, first token", samples.values("alone", "first_ms"), "ms")


def _long(length: int, *seed: object) -> Request:
    return Request(prompt=words(length, "long", *seed), max_tokens=1)


def _crowd(length: int, streams: int, number: int) -> Metrics:
    """Let streams run, send the long prompt, and cancel them when it has its first token."""
    results = [send(request, MODEL) for request in greedy(streams, 8, 1000, "crowd", number)]
    readings = [Reading(time.perf_counter()) for _ in results]
    threads = [threading.Thread(target=read, args=pair, daemon=True) for pair in zip(results, readings, strict=True)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + PATIENCE_S
    while any(len(reading.arrivals) < 12 for reading in readings):
        if time.monotonic() > deadline or any(reading.ended_at for reading in readings):
            raise BenchmarkError(f"{streams} streams did not go on for 12 tokens, or took over {PATIENCE_S:g} s")
        time.sleep(0.01)
    long = asker(MODEL)(_long(length, "crowded", number))
    for result in results:
        result.revoke(terminate=True)
    for thread in threads:
        thread.join()
    pairs = [pair for reading in readings for pair in pairwise(reading.arrivals)]
    before = [end - start for start, end in pairs[1:] if end < long.sent_at]
    during = [end - start for start, end in pairs if end > long.sent_at and start < long.arrivals[0]]
    return {
        "step_ms": statistics.median(before) * 1000,
        "worst_ms": max(during) * 1000,
        "first_ms": long.first_ms,
    }


def _measure_finish(bench: Bench, found: Findings) -> None:
    rows = bench.size(16, 4)
    config = EngineConfig(
        model=MODEL, source=str(bundled_folder(MODEL)), max_batch=rows, prompt_cache_bytes=PROMPT_CACHE_BYTES
    )
    with loaded_engine(config) as engine:
        samples = bench.in_turns("batching, a row ends", {"engine": lambda number: _finish_one(engine, rows, number)})
    about = f"one of {rows} rows ends: the engine's step after it / before it"
    found.figure(about, samples.ratio("engine", "engine", "after_ms", "before_ms"), target=at_most(1.5, 1.0))
    found.measured(f"step of {rows} rows before one ends", samples.values("engine", "before_ms"), "ms")
    found.measured("step after it", samples.values("engine", "after_ms"), "ms")


def _finish_one(engine: EngineProcess, rows: int, number: int) -> Metrics:
    """Times between the engine's messages around the first end. The first message after an end is the step's own tokens."""
    for row in range(rows):
        engine.send(
            Submit(
                task_id=f"{number}-{row}",
                messages=None,
                prompt=endless(80, "row", number, row),  # long enough for the prompt cache to keep it
                max_tokens=12 if row == rows // 2 else 24,
                sampling=Sampling(temperature=0.0),
            )
        )
    steps: list[float] = []
    ended_at: list[int] = []
    left = rows
    while left:
        message = engine.receive()
        assert isinstance(message, StepOutput)
        now = time.perf_counter()
        if sum(isinstance(event, Tokens) for event in message.events) >= rows - 1:
            steps.append(now)
        ends = sum(isinstance(event, Finished) for event in message.events)
        left -= ends
        if ends and len(steps) > 1:
            ended_at.append(len(steps) - 1)
    gaps = [after - before for before, after in pairwise(steps)]
    first = ended_at[0]
    return {"before_ms": statistics.median(gaps[max(0, first - 6) : first]) * 1000, "after_ms": gaps[first] * 1000}


def _measure_timed(bench: Bench, found: Findings) -> None:
    with worker(bench, "fake:10", 8):
        ask = asker("fake:10")
        closed_loop(ask, greedy(8, 3, 2, "warm"), 8)
        samples = bench.in_turns(
            "batching, 8 requests of 20 tokens",
            {
                "8 at once": lambda number: closed_loop(ask, greedy(8, 3, 20, number), 8).metrics(),
                "one by one": lambda number: closed_loop(ask, greedy(8, 3, 20, number), 1).metrics(),
            },
        )
    about = "8 requests of 20 tokens, steps of 10 ms, 8 slots"
    times = [seconds * 1000 for seconds in samples.values("8 at once", "seconds")]
    found.figure(f"{about}: first submit to last end", times, "ms", at_most(300))
    found.figure(f"{about}: time taken, at once / one by one", samples.ratio("8 at once", "one by one", "seconds"))


ROW = Row(
    "batching", "What continuous batching gains, and what running streams pay when a request comes or goes.", measure
)

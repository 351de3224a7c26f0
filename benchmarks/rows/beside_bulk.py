"""An interactive client beside a bulk job on the bundled model: what it waits for, and what it costs the job."""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.bench import Row
from benchmarks.contenders.bare import BareEngine
from benchmarks.contenders.ours import read
from benchmarks.figures import at_least, at_most, p50
from benchmarks.load import Reading, arrivals, endless
from benchmarks.processes import start, wait_for, worker
from benchmarks.rows.bulk import PROMPT_CACHE_BYTES, PROMPT_TOKENS, SETTINGS, SLOTS, prompts
from tasks.demo.bundled import MODEL

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from benchmarks.bench import Bench
    from benchmarks.figures import Findings, Metrics
    from benchmarks.load import Request

#: A job that does not end while it is measured.
ENDLESS_LINES, ENDLESS_TOKENS = 20_000, 32
PER_S = 1.0
READER_TOKENS = 8


def measure(bench: Bench, found: Findings) -> None:
    """What the engine alone makes of a client beside rows of a job, then the client beside a job."""
    with BareEngine(MODEL, SLOTS, PROMPT_CACHE_BYTES, urgent_rows=SLOTS // 4) as engine:
        _measure_engine(bench, found, engine)
    _measure_beside(bench, found)


def _measure_engine(bench: Bench, found: Findings, engine: BareEngine) -> None:
    """How much of a client's wait is the engine's."""
    count = bench.size(30, 2)

    def first(rows: int, number: object) -> Metrics:
        firsts, steps = engine.first_tokens(
            list(prompts(rows, "rows", number)), list(prompts(count, "urgent", rows, number)), PER_S
        )
        return {"first_p50_ms": p50(firsts), "step_p50_ms": p50(steps) if rows else 0.0}

    samples = bench.in_turns("bulk, the engine alone", {"alone": partial(first, 0), "beside": partial(first, SLOTS)})
    about = f"the engine alone, prompts of {PROMPT_TOKENS} tokens"
    found.figure(
        f"{about}: time to first token p50, beside {SLOTS} rows / alone",
        samples.ratio("beside", "alone", "first_p50_ms"),
    )
    for name in ("alone", "beside"):
        found.measured(f"{about}: first token p50, {name}", samples.values(name, "first_p50_ms"), "ms")
    found.measured(f"{about}: a step of {SLOTS} rows", samples.values("beside", "step_p50_ms"), "ms")


def _measure_beside(bench: Bench, found: Findings) -> None:
    with worker(bench, MODEL, SLOTS, SETTINGS):
        for length in (PROMPT_TOKENS, 3 * PROMPT_TOKENS):
            _compare(bench, found, length)


def _compare(bench: Bench, found: Findings, length: int) -> None:
    count = bench.size(40, 3)
    source = bench.folder / f"endless-{length}.jsonl"
    source.write_text(
        "".join(
            json.dumps({"prompt": prompt, "max_tokens": ENDLESS_TOKENS, "temperature": 0, "model": MODEL}) + "\n"
            for prompt in prompts(bench.size(ENDLESS_LINES, 400), "beside", length)
        )
    )
    _ask_at_a_rate(2, length, "warm")
    samples = bench.in_turns(
        f"bulk, a client beside it, prompts of {length} tokens",
        {
            "idle": lambda number: _ask_at_a_rate(count, length, "idle", number),
            "bulk": lambda _: _beside(bench, source, lambda: _wait(count / PER_S)),
            "both": lambda number: _beside(bench, source, lambda: _ask_at_a_rate(count, length, "both", number)),
        },
    )
    about = f"{PER_S:g} request/s of {length} tokens beside bulk"
    for metric, name in (("first_p50_ms", "p50"), ("first_p99_ms", "p99")):
        ratio = samples.ratio("both", "idle", metric)
        found.figure(f"{about}: time to first token {name}, beside / alone", ratio, target=at_most(1.3))
        for contender in ("idle", "both"):
            found.measured(f"{about}: first token {name}, {contender}", samples.values(contender, metric), "ms")
    found.figure(
        f"{about}: bulk's tokens/s, beside / alone", samples.ratio("both", "bulk", "tokens_per_s"), target=at_least(0.8)
    )
    for contender in ("bulk", "both"):
        found.measured(f"{about}: bulk, {contender}", samples.values(contender, "tokens_per_s"), "tokens/s")


def _ask_at_a_rate(count: int, length: int, *seed: object) -> Metrics:
    """An interactive client's requests, each with a reader of its stream."""
    from benchmarks.load import Request

    requests = [
        Request(prompt=endless(length, number, "reader", *seed), max_tokens=READER_TOKENS) for number in range(count)
    ]
    metrics = arrivals(_ask, requests, PER_S).metrics()
    return {name: metrics[name] for name in ("first_p50_ms", "first_p99_ms")}


def _ask(request: Request) -> Reading:
    from tasks import generate

    reading = Reading(time.perf_counter())
    values = {"prompt": request.prompt, "model": MODEL, "max_tokens": request.max_tokens, "temperature": 0}
    return read(generate.apply_async(kwargs=values), reading)


def _beside(bench: Bench, source: Path, meanwhile: Callable[[], Metrics]) -> Metrics:
    """Bulk's rate while something else is done."""
    target = source.with_name(f"{source.stem}-{time.monotonic_ns()}.out")
    command = [sys.executable, "-m", "celery", "-A", "tasks", "bulk", "run", str(source), str(target), "--quiet"]
    process = start(bench, "bulk", command)
    try:
        wait_for(lambda: _tokens(target) > 2 * SLOTS * ENDLESS_TOKENS, "the job", process)
        before, began = _tokens(target), time.perf_counter()
        found = meanwhile()
        wait_for(lambda: _tokens(target) > before, "a line", process)
        rate = (_tokens(target) - before) / (time.perf_counter() - began)
    finally:
        process.stop()
    return {**found, "tokens_per_s": rate}


def _wait(seconds: float) -> Metrics:
    time.sleep(seconds)
    return {}


def _tokens(target: Path) -> int:
    if not target.exists():
        return 0
    lines = target.read_bytes().split(b"\n")[:-1]
    return sum(json.loads(line)["usage"]["completion_tokens"] for line in lines)


ROW = Row("beside-bulk", "An interactive client beside a bulk job.", measure)

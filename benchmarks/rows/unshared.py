"""Unshared: what affinity costs requests that share no prefix, so that no worker is warm for them."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.bench import Row
from benchmarks.contenders.ours import read
from benchmarks.figures import at_least, at_most
from benchmarks.load import Reading, closed_loop, greedy
from benchmarks.processes import QUEUE, worker
from benchmarks.rows.affinity import producer
from tasks.demo.bundled import MODEL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.bench import Bench, Measure
    from benchmarks.figures import Findings, Metrics
    from benchmarks.load import Ask, Request
    from tasks.generate import GenerateTask

FAKE = "fake:0"
SLOTS = 32
READERS = 16
PROMPT_TOKENS = 200


def measure(bench: Bench, found: Findings) -> None:
    """A worker and a producer with affinity, and the same without, in turns; each prompt is new to both."""
    contenders: dict[str, Measure] = {
        "off": partial(_run, bench, False),
        "on": partial(_run, bench, True),
    }
    samples = bench.in_turns("requests that share no prefix", contenders)
    about = "without shared prefixes, with affinity / without"
    loads = (
        ("tokens_per_s", "tokens/s", f"bundled model, {READERS} readers", at_least(0.98)),
        ("requests_per_s", "requests/s", f"engine that takes no time, closed loop of {SLOTS}", at_least(0.98)),
        ("first_ms", "ms", "engine that takes no time, 1 in flight, submit to first chunk, p50", at_most(1.02)),
    )
    for metric, unit, load, target in loads:
        found.figure(f"{about}: {load}, {unit}", samples.ratio("on", "off", metric), target=target)
        for name in ("off", "on"):
            found.measured(f"{load}, {name}", samples.values(name, metric), unit)


def _run(bench: Bench, affinity: bool, number: int) -> Metrics:
    settings = {"CELERY_MLX_AFFINITY": str(int(affinity))}
    with producer(affinity) as generate:
        fake = _asker(generate, FAKE)
        with worker(bench, FAKE, SLOTS, settings):
            closed_loop(fake, _requests(100, number, "warm-up"), 4)
            single = closed_loop(fake, _requests(bench.size(300, 20), number, "single"), 1)
            many = closed_loop(fake, _requests(bench.size(1500, 100), number, "many"), SLOTS)
        with worker(bench, MODEL, READERS, settings):
            model = closed_loop(_asker(generate, MODEL), _requests(bench.size(32, 4), number, "model"), READERS)
    return {
        "first_ms": single.metrics()["first_p50_ms"],
        "requests_per_s": many.requests_per_s,
        "tokens_per_s": model.tokens_per_s,
    }


def _requests(count: int, number: int, seed: str) -> Sequence[Request]:
    return greedy(count, PROMPT_TOKENS, 12 if seed == "model" else 1, "unshared", seed, number)


def _asker(generate: GenerateTask, model: str) -> Ask:
    def ask(request: Request) -> Reading:
        reading = Reading(time.perf_counter())
        values = {
            "prompt": request.prompt,
            "model": model,
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
        }
        return read(generate.apply_async(kwargs=values, queue=QUEUE), reading)

    return ask


ROW = Row("unshared", "Requests that share no prefix, with and without affinity.", measure)

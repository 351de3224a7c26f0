"""Bulk on the bundled model: its rate beside the bare engine's."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.bench import Row
from benchmarks.contenders.bare import BareEngine
from benchmarks.figures import at_least
from benchmarks.load import endless
from benchmarks.processes import BenchmarkError, worker
from tasks.demo.bundled import MODEL

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.bench import Bench
    from benchmarks.figures import Findings, Metrics

SLOTS = 16
#: The most slots that a tier gives, of which ``-c`` leaves 16.
SETTINGS = {"CELERY_MLX_CHIP": "M2 Ultra"}
PROMPT_CACHE_BYTES = 1 << 28
LINES, LINE_TOKENS = 2_000, 8
PROMPT_TOKENS = 16


def measure(bench: Bench, found: Findings) -> None:
    """The job and the bare engine, in turns."""
    # Room enough for requests that wait for each other's steps, as they do on a slow machine.
    with BareEngine(MODEL, 2 * SLOTS, PROMPT_CACHE_BYTES) as engine:
        _measure_rate(bench, found, engine)


def _measure_rate(bench: Bench, found: Findings, engine: BareEngine) -> None:
    count = bench.size(LINES, 32)

    def bare(count: int, number: object) -> Metrics:
        texts = list(prompts(count, "rate", number))
        return {"tokens_per_s": engine.tokens_per_s(texts, LINE_TOKENS, SLOTS)}

    with worker(bench, MODEL, SLOTS, SETTINGS):
        bare(SLOTS, "warm")
        _job(SLOTS, "warm")
        samples = bench.in_turns(f"bulk, {count} lines", {"bulk": partial(_job, count), "engine": partial(bare, count)})
    about = f"{count} lines of {LINE_TOKENS} tokens, {SLOTS} slots"
    found.figure(
        f"{about}: tokens/s, bulk / the engine alone",
        samples.ratio("bulk", "engine", "tokens_per_s"),
        target=at_least(0.97),
    )
    for name in ("bulk", "engine"):
        found.measured(f"{about}: {name}", samples.values(name, "tokens_per_s"), "tokens/s")


def prompts(count: int, *seed: object) -> Iterator[str]:
    """So many texts, with which no cache helps."""
    return (endless(PROMPT_TOKENS, line, *seed) for line in range(count))


def _job(count: int, number: object) -> Metrics:
    from tasks import generate

    lines = [
        {"prompt": prompt, "max_tokens": LINE_TOKENS, "temperature": 0} for prompt in prompts(count, "rate", number)
    ]
    started = time.perf_counter()
    tokens = 0
    for line in generate.bulk(lines, model=MODEL):
        if line.error is not None:
            raise BenchmarkError(f"line {line.id}: {line.error}")
        tokens += line.answer["usage"]["completion_tokens"] if line.answer else 0
    return {"tokens_per_s": tokens / (time.perf_counter() - started)}


ROW = Row("bulk", "A bulk job's rate beside the bare engine's.", measure)

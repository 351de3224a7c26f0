"""Structured output: what masks cost the rows that have them, the rows beside them, and what ``mlx_lm.server`` does without."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from benchmarks.bench import Row
from benchmarks.contenders.dense import ensure_dense_model
from benchmarks.contenders.peer import peer
from benchmarks.figures import at_least, at_most
from benchmarks.load import closed_loop, endless, greedy
from benchmarks.parts.engine import loaded_engine
from benchmarks.processes import BenchmarkError
from tasks.demo.bundled import MODEL
from tasks.messages.constraint import Constraint
from tasks.messages.encoding import to_json
from tasks.messages.engine import (
    EngineConfig,
    Failed,
    Finished,
    Sampling,
    StepOutput,
    Submit,
    Tokens,
)
from worker_config.cache import bundled_folder

if TYPE_CHECKING:
    from benchmarks.bench import Bench
    from benchmarks.figures import Findings, Metrics
    from benchmarks.load import Load
    from tasks.worker.engines.process import EngineProcess

#: An end token of the model, which would end free rows early; 2 is <|im_end|>, 0 <|endoftext|>.
ENDS = {0: -100.0, 2: -100.0}
PROMPT_TOKENS = 40


def measure(bench: Bench, found: Findings) -> None:
    """On the bundled model's engine alone, beside the peer's rows, which are free: it knows no constraints."""
    rows, tokens = bench.size(16, 4), bench.size(96, 24)
    config = EngineConfig(model=MODEL, source=str(bundled_folder(MODEL)), max_batch=rows)
    with peer(bench, ensure_dense_model(bench.say)) as ask_peer, loaded_engine(config) as engine:
        _run(engine, "warm", rows, rows, 4)
        parts = {"free": 0, "half constrained": rows // 2, "constrained": rows}

        def run(name: str, number: int) -> Metrics:
            return _run(engine, f"{name}-{number}", rows, parts[name], tokens)

        def run_peer(number: int) -> Metrics:
            return _decoding(closed_loop(ask_peer, greedy(rows, PROMPT_TOKENS, tokens, "peer", number), rows))

        closed_loop(ask_peer, greedy(rows, PROMPT_TOKENS, 4, "warm"), rows)
        samples = bench.in_turns("structured", {**{name: partial(run, name) for name in parts}, "peer, free": run_peer})
    ratio = samples.ratio("constrained", "free", "tokens_per_s")
    found.figure(f"tokens/s, {rows} rows with a schema each / the same rows free", ratio, target=at_least(0.95))
    beside = samples.ratio("constrained", "peer, free", "tokens_per_s")
    found.figure(f"tokens/s, {rows} rows with a schema each / mlx_lm.server, free", beside, target=at_least(1.1))
    gaps = samples.ratio("half constrained", "free", "free_gap_ms")
    found.figure(
        f"gaps of {rows - rows // 2} free rows beside {rows // 2} constrained ones / beside free ones",
        gaps,
        target=at_most(1.03),
    )
    for name in (*parts, "peer, free"):
        found.measured(f"{rows} rows, {name}", samples.values(name, "tokens_per_s"), "tokens/s")


def _decoding(load: Load) -> Metrics:
    """Tokens per second from the first token on, as of our own rows."""
    arrivals = [arrival for reading in load.readings for arrival in reading.arrivals]
    tokens = sum(reading.tokens for reading in load.readings)
    return {"tokens_per_s": tokens / (max(arrivals) - min(arrivals))}


def _schema(number: int) -> Constraint:
    """A schema of its own for each row, whose shortest answer is longer than the run."""
    item = {
        "type": "object",
        "properties": {
            f"name_{number}": {"type": "string", "maxLength": 30},
            "kind": {"enum": ["a", "b", number]},
            "count": {"type": "integer", "minimum": 0, "maximum": 1000 + number},
            "when": {"type": "string", "format": "date"},
        },
        "required": [f"name_{number}", "kind", "count", "when"],
        "additionalProperties": False,
    }
    return Constraint(kind="json_schema", value=to_json({"type": "array", "items": item, "minItems": 100}))


@dataclass(slots=True)
class _Times:
    """When tokens came, of all rows and of each free one."""

    first: float = 0.0
    last: float = 0.0
    tokens: int = 0
    free: dict[str, list[float]] = field(default_factory=dict)

    def metrics(self) -> Metrics:
        gaps = [after - before for times in self.free.values() for before, after in pairwise(times)]
        found = {"tokens_per_s": self.tokens / (self.last - self.first)}
        return found | ({"free_gap_ms": statistics.median(gaps) * 1000} if gaps else {})


def _run(engine: EngineProcess, name: str, rows: int, constrained: int, tokens: int) -> Metrics:
    """So many rows at once, the first of them constrained."""
    for row in range(rows):
        engine.send(
            Submit(
                task_id=f"{name}-{row}",
                messages=None,
                prompt=endless(PROMPT_TOKENS, name, row),
                max_tokens=tokens,
                sampling=Sampling(temperature=0.0, logit_bias=ENDS),
                constraint=_schema(row) if row < constrained else None,
            )
        )
    times = _Times(free={f"{name}-{row}": [] for row in range(constrained, rows)})
    left = rows
    while left:
        message = engine.receive()
        assert isinstance(message, StepOutput)
        now = time.perf_counter()
        for event in message.events:
            if isinstance(event, Failed):
                raise BenchmarkError(event.message)
            left -= isinstance(event, Finished)
            if isinstance(event, Tokens) and event.ids:
                times.first, times.last = times.first or now, now
                times.tokens += len(event.ids)
                if event.task_id in times.free:
                    times.free[event.task_id].append(now)
    return times.metrics()


ROW = Row(
    "structured",
    "Structured output: rows with a JSON schema each beside the same rows free, and mlx_lm.server.",
    measure,
)

"""A model's step on a CPU: weights as they come, and laid out for this machine's BLAS, in turns in one process."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.bench import Row
from benchmarks.contenders.dense import ensure_dense_model
from benchmarks.figures import at_least
from benchmarks.parts.engine import contender_environment
from benchmarks.processes import Child

if TYPE_CHECKING:
    from benchmarks.bench import Bench, Measure
    from benchmarks.figures import Findings

WEIGHTS = ("as they come", "laid out")
#: By name: rows, tokens of each, steps of one turn, and whether there is a bound.
STEPS = {
    "1 row": (1, 1, 10, True),
    "4 rows": (4, 1, 10, True),
    "16 rows": (16, 1, 10, True),
    "32 rows": (32, 1, 10, True),
    "a prompt of 256 tokens": (1, 256, 3, False),
}


def measure(bench: Bench, found: Findings) -> None:
    """Both in one process, which has the model twice."""
    child = Child(
        bench, "benchmarks.contenders.layouts", str(ensure_dense_model(bench.say)), env=contender_environment()
    )
    try:
        for name, (rows, tokens, steps, bounded) in STEPS.items():
            question = {"rows": rows, "tokens": tokens, "steps": bench.size(steps, 2)}
            contenders: dict[str, Measure] = {weights: partial(_ask, child, weights, question) for weights in WEIGHTS}
            samples = bench.in_turns(f"step, {name}", contenders)
            for metric, unit in (("step_ms", "time"), ("processor_ms", "processor time")):
                target = at_least(1.25, 1.5) if bounded and metric == "step_ms" else None
                ratio = samples.ratio("as they come", "laid out", metric)
                found.figure(f"{name}: {unit} of a step, as they come / laid out", ratio, "", target)
                for weights in WEIGHTS:
                    found.measured(f"{name}: {unit} of a step, {weights}", samples.values(weights, metric), "ms")
    finally:
        child.stop()


def _ask(child: Child, weights: str, question: dict[str, Any], _number: int) -> dict[str, float]:
    answer: dict[str, float] = child.ask({**question, "weights": weights})
    return answer


ROW = Row("step", "A step of the bundled model on a CPU: weights as they come, and laid out for the BLAS.", measure)

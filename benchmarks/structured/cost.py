"""What constraints cost a processor: answers are gone through again, outside of the engine."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tasks.engine.constraint.compiler import Compiler
from tasks.engine.constraint.masks import fill
from tasks.engine.constraint.tokens import Tokens
from tasks.engine.text.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tasks.messages.constraint import Constraint

#: No constraint may hold up the rows beside it for longer.
MOST_STEP_MS = 20.0


@dataclass(slots=True)
class Cost:
    """Milliseconds of this thread's processor time, which a busy machine does not lengthen by much."""

    compile_ms: list[float] = field(default_factory=list)
    mask_ms: list[float] = field(default_factory=list)

    def report(self) -> list[str]:
        """The lines about it."""
        long = sum(value > MOST_STEP_MS for value in self.mask_ms)
        return [
            f"  compiling: {_percentiles(self.compile_ms)}",
            f"  masks of {len(self.mask_ms)} tokens: {_percentiles(self.mask_ms)}, {long} over {MOST_STEP_MS:.0f} ms",
        ]


def measure(folder: Path, answers: Sequence[tuple[Constraint, list[int]]]) -> Cost:
    """Compile each constraint, and fill a mask for each token of its answer."""
    tokenizer = load_tokenizer(folder, trust_remote_code=False, ends=(), template=None)
    width = len(tokenizer)
    compiler = Compiler(lambda: Tokens(tokenizer, width))
    assert compiler.tokens  # made once for each model, and not at the cost of the first constraint
    cost = Cost()
    for constraint, token_ids in answers:
        begun = time.thread_time()
        matcher = compiler.compile(constraint).matcher()
        cost.compile_ms.append((time.thread_time() - begun) * 1000)
        for token_id in token_ids:
            begun = time.thread_time()
            fill([matcher], width)
            cost.mask_ms.append((time.thread_time() - begun) * 1000)
            matcher.take(token_id)
    return cost


def _percentiles(values: list[float]) -> str:
    if not values:
        return "none"
    ordered = sorted(values)
    at = {name: ordered[int(len(ordered) * part)] for name, part in (("p50", 0.5), ("p99", 0.99))}
    return ", ".join(f"{name} {value:.3f} ms" for name, value in {**at, "max": ordered[-1]}.items())

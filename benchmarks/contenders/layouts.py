"""The bundled model in dense float32 twice: weights as they come, and laid out as an engine does on this machine.

``python -m benchmarks.contenders.layouts FOLDER MODEL`` answers how long a step takes.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.processes import serve
from tasks.engine.model.blas import blas_threads, describe_blas, load_blas
from worker_config.cache import cache_folder

#: Tokens in the cache before the first step.
CONTEXT_TOKENS = 8


class Steps:
    """The process, from inside."""

    def __init__(self, folder: Path, blas: str) -> None:
        from mlx_lm import load

        from tasks.engine.model.layout.dense import lay_out
        from tasks.engine.model.layout.record import Record
        from tasks.engine.model.reference import Reference

        loaded: list[Any] = [load(str(folder)) for _ in range(2)]
        self._models = {"as they come": loaded[0][0], "laid out": loaded[1][0]}
        model, machine = self._models["laid out"], (describe_blas(blas), blas_threads(blas))
        lay_out(model, Record(cache_folder()), *machine, Reference(model))

    def answer(self, question: dict[str, Any]) -> dict[str, float]:
        """Medians of some steps of so many rows, each of so many tokens: in time, and in processor time of all threads."""
        import mlx.core as mx
        from mlx_lm.models.cache import BatchKVCache

        model, rows, tokens = self._models[question["weights"]], question["rows"], question["tokens"]
        took, spent = [], []
        cache = [BatchKVCache([0] * rows) for _ in model.layers]
        model(mx.array([list(range(10, 10 + CONTEXT_TOKENS))] * rows), cache=cache)
        mx.eval([layer.state for layer in cache])
        for _ in range(question["steps"]):
            now, processor = time.perf_counter(), time.process_time()
            logits = model(mx.array([list(range(5, 5 + tokens))] * rows), cache=cache)
            mx.eval(logits if tokens == 1 else [layer.state for layer in cache])
            took.append(time.perf_counter() - now)
            spent.append(time.process_time() - processor)
        return {"step_ms": statistics.median(took) * 1000, "processor_ms": statistics.median(spent) * 1000}


if __name__ == "__main__":
    name = load_blas()
    serve(Path(sys.argv[1]), Steps(Path(sys.argv[2]), name).answer)

"""The limit: mlx-lm's ``BatchGenerator`` in one bare process: no queue, no worker, no text, and nobody who reads.

It has the fixes that ours has and that stand outside mlx-lm: an optimised BLAS with as many threads, and the caches of finished
rows evaluated before the next step. ``python -m benchmarks.contenders.limit FOLDER MODEL`` answers :class:`Limit`.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.load import Load, Reading, Request
from benchmarks.parts.engine import contender_environment
from benchmarks.processes import Child, serve
from tasks.engine.model.blas import load_blas

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.bench import Bench


class Limit:
    """The process, from outside. A context manager.

    Args:
        bench: the run.
        model: the model's folder.
        settings: environment variables that differ from those of our engines.
    """

    def __init__(self, bench: Bench, model: Path, settings: Mapping[str, str] | None = None) -> None:
        env = {**contender_environment(), **(settings or {})}
        self._child = Child(bench, "benchmarks.contenders.limit", str(model), env=env)

    def run(self, requests: Sequence[Request], readers: int) -> Load:
        """Answer them all, so many at once."""
        plain = [[request.prompt, request.max_tokens, request.temperature, request.logprobs] for request in requests]
        readings = self._child.ask({"requests": plain, "readers": readers})
        return Load([Reading(sent, arrivals, tokens, ended) for sent, arrivals, tokens, ended in readings])

    def __enter__(self) -> Limit:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.stop()


class Generator:
    """The process, from inside."""

    def __init__(self, folder: Path) -> None:
        import mlx.core as mx
        from mlx_lm import load
        from mlx_lm.generate import BatchGenerator
        from mlx_lm.sample_utils import make_sampler

        self._eval = mx.eval
        # One object for all rows with the same parameters: mlx-lm then samples them in one call.
        self._sampler = cache(lambda temperature: make_sampler(temp=temperature))
        loaded: Any = load(str(folder))
        model, self._tokenizer = loaded
        ends = [[token] for token in self._tokenizer.eos_token_ids]
        self._batch: Any = BatchGenerator(model, stop_tokens=ends)

    def answer(self, question: dict[str, Any]) -> list[list[Any]]:
        """Readings of a closed loop."""
        waiting = deque(
            Request(prompt=prompt, max_tokens=max_tokens, temperature=temperature, logprobs=logprobs)
            for prompt, max_tokens, temperature, logprobs in question["requests"]
        )
        running: dict[int, tuple[Request, Reading]] = {}
        done: list[Reading] = []
        while waiting or running:
            joining = [waiting.popleft() for _ in range(min(len(waiting), question["readers"] - len(running)))]
            if joining:
                now = time.perf_counter()
                running.update(
                    zip(self._insert(joining), [(request, Reading(now)) for request in joining], strict=True)
                )
            for response in self._batch.next()[1]:
                request, reading = running[response.uid]
                if request.logprobs:
                    response.logprobs[response.token].item()
                reading.arrivals.append(time.perf_counter())
                reading.tokens += 1
                if response.finish_reason is not None:
                    self._eval([layer.state for layer in response.prompt_cache])
                    reading.ended_at = time.perf_counter()
                    done.append(reading)
                    del running[response.uid]
        return [[reading.sent_at, reading.arrivals, reading.tokens, reading.ended_at] for reading in done]

    def _insert(self, requests: list[Request]) -> list[int]:
        samplers = [self._sampler(request.temperature) for request in requests]
        prompts = [self._tokenizer.encode(request.prompt) for request in requests]
        return list(self._batch.insert(prompts, [request.max_tokens for request in requests], samplers=samplers))


if __name__ == "__main__":
    load_blas()
    serve(Path(sys.argv[1]), Generator(Path(sys.argv[2])).answer)

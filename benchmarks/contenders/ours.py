"""Ours: ``generate.apply_async()`` in this process, Redis, a worker, its engine, and the stream back here."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from benchmarks.load import Reading
from benchmarks.processes import QUEUE

if TYPE_CHECKING:
    from benchmarks.load import Ask, Request
    from tasks.client.result import GenerateResult

#: Longer than any load takes: a request that hangs must end the row, not hang the run.
STREAM_TIMEOUT_S = 300


def asker(model: str) -> Ask:
    """Sends requests for this model and reads their streams."""

    def ask(request: Request) -> Reading:
        reading = Reading(time.perf_counter())
        return read(send(request, model), reading)

    return ask


def send(request: Request, model: str) -> GenerateResult:
    """Submit, as a producer does."""
    from tasks import generate

    values: dict[str, Any] = {
        "prompt": request.prompt,
        "model": model,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "logprobs": request.logprobs,
    }
    return generate.apply_async(kwargs=values, queue=QUEUE)


def read(result: GenerateResult, reading: Reading) -> Reading:
    """Read the stream to its end."""
    for chunk in result.stream(timeout=STREAM_TIMEOUT_S):
        if chunk.ids:
            reading.arrivals.append(time.perf_counter())
            reading.tokens += len(chunk.ids)
        if chunk.finish_reason is not None:
            reading.timing = chunk.timing or {}
    reading.ended_at = time.perf_counter()
    return reading

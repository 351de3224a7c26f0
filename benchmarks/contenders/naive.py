"""Naive: a Celery task that calls mlx-lm once for each request, on the pools that Celery has.

Also the ordinary task that does nothing, on Celery's stock transport and thread pool: what a task costs without us.
"""

from __future__ import annotations

import sys
import time
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from celery.exceptions import TimeoutError as CeleryTimeout

from benchmarks.contenders.naive_app import app
from benchmarks.load import Reading, Request, closed_loop
from benchmarks.parts.engine import contender_environment
from benchmarks.processes import BenchmarkError, start, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.bench import Bench
    from benchmarks.load import Ask
    from tasks.demo.process import GuardedProcess

RESULT_TIMEOUT_S = 300


@contextmanager
def naive(bench: Bench, pool: str, concurrency: int, model: Path | None = None) -> Iterator[Ask]:
    """Asks such a worker for as long as the block runs; without a model its task does nothing."""
    name = "benchmarks.generate" if model else "benchmarks.nothing"
    with _stock(bench, pool, concurrency) as (process, queue):

        def ask(request: Request) -> Reading:
            reading = Reading(time.perf_counter())
            arguments: list[Any] = [str(model), request.prompt, request.max_tokens] if model else []
            reading.tokens = int(app.send_task(name, arguments, queue=queue).get(timeout=RESULT_TIMEOUT_S))
            reading.ended_at = time.perf_counter()
            reading.arrivals = [reading.ended_at]
            return reading

        try:
            # Each process of the pool loads the model with its first request.
            closed_loop(ask, [Request(prompt="time", max_tokens=1)] * 2 * concurrency, concurrency)
        except CeleryTimeout as error:
            raise BenchmarkError(f"Celery's {pool} worker: {error}: {process.log_tail(5)}") from error
        yield ask


@contextmanager
def stock_worker(bench: Bench) -> Iterator[int]:
    """The process id of an idle worker of Celery's thread pool."""
    with _stock(bench, "threads", 4) as (process, _):
        yield process.pid


@contextmanager
def _stock(bench: Bench, pool: str, concurrency: int) -> Iterator[tuple[GuardedProcess, str]]:
    """A worker with Celery's own pool and transport, and the queue that it alone consumes."""
    queue = f"naive-{pool}-{uuid.uuid4().hex[:8]}"
    command = [sys.executable, "-m", "celery", "-A", "benchmarks.contenders.naive_app", "worker", "-P", pool]
    command += ["-c", str(concurrency), "-Q", queue, "-n", f"{queue}@here", "-l", "WARNING"]
    command += ["--without-gossip", "--without-mingle"]
    process = start(bench, queue, command, contender_environment())
    try:
        replies = app.control.inspect(destination=[f"{queue}@here"], timeout=0.3)
        wait_for(replies.ping, f"Celery's {pool} worker", process)
        yield process, queue
    finally:
        process.stop()

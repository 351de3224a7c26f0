"""The peer: ``mlx_lm.server``, spoken to over HTTP with streaming, as its users do.

``python -m benchmarks.contenders.peer ARGUMENTS`` is ``mlx_lm.server`` with the optimised BLAS that ours has, too.
"""

from __future__ import annotations

import http.client
import json
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.load import Reading, Request
from benchmarks.processes import BenchmarkError, start, wait_for
from tasks.demo.embedded import free_port
from tasks.engine.model.blas import load_blas
from tasks.worker.engines.process import engine_environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.bench import Bench
    from benchmarks.load import Ask


RESETS_MAX, RESET_PAUSE_S = 20, 0.05


@contextmanager
def peer(bench: Bench, model: Path) -> Iterator[Ask]:
    """Asks a server that runs for as long as the block does."""
    import sys

    port = free_port()
    arguments = ["--model", str(model), "--port", str(port), "--log-level", "WARNING"]
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.contenders.peer", *arguments]
    process = start(bench, "mlx_lm.server", command, engine_environment())

    def ask(request: Request) -> Reading:
        return _ask(port, request)

    try:
        wait_for(lambda: _answers(port), "mlx_lm.server", process)
        yield ask
    finally:
        process.stop()


def _answers(port: int) -> bool:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == http.client.OK
        except OSError:
            return False


def _ask(port: int, request: Request) -> Reading:
    body: dict[str, Any] = {
        "prompt": request.prompt,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "logprobs": request.logprobs,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    reading = Reading(time.perf_counter())
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=600)) as connection:
        for line in _post(connection, json.dumps(body)):
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line.removeprefix(b"data: "))
            if event.get("usage"):
                reading.tokens = event["usage"]["completion_tokens"]
            elif event["choices"][0].get("text"):
                reading.arrivals.append(time.perf_counter())
    reading.ended_at = time.perf_counter()
    return reading


def _post(connection: http.client.HTTPConnection, body: str) -> http.client.HTTPResponse:
    """Its answer, begun. The server listens with a queue of five, and resets the connections of a burst beyond that."""
    for _ in range(RESETS_MAX):
        try:
            connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
            return connection.getresponse()
        except ConnectionResetError:
            connection.close()
            time.sleep(RESET_PAUSE_S)
    raise BenchmarkError(f"mlx_lm.server has reset {RESETS_MAX} connections of one request")


if __name__ == "__main__":
    load_blas()
    from mlx_lm.server import main

    main()

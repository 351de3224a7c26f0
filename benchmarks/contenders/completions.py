"""Asking a server for a stream of ``/v1/completions``, as its users do."""

from __future__ import annotations

import http.client
import json
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

from benchmarks.load import Reading, Request
from benchmarks.processes import BenchmarkError

if TYPE_CHECKING:
    from benchmarks.load import Ask

RESETS_MAX, RESET_PAUSE_S = 20, 0.05


def asker(port: int, model: str | None = None) -> Ask:
    """Asks the server at this port for this model, or for its only one."""
    named = {} if model is None else {"model": model}

    def ask(request: Request) -> Reading:
        return _ask(port, request, named)

    return ask


def answers(port: int) -> bool:
    """Whether the server takes requests."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == http.client.OK
        except OSError:
            return False


def _ask(port: int, request: Request, named: dict[str, str]) -> Reading:
    body: dict[str, Any] = {
        "prompt": request.prompt,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        **({"logprobs": True} if request.logprobs else {}),
        "stream": True,
        "stream_options": {"include_usage": True},
        **named,
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
    """Its answer, begun. ``mlx_lm.server`` listens with a queue of five, and resets the connections of a burst beyond that."""
    for _ in range(RESETS_MAX):
        try:
            connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
            return connection.getresponse()
        except ConnectionResetError:
            connection.close()
            time.sleep(RESET_PAUSE_S)
    raise BenchmarkError(f"the server has reset {RESETS_MAX} connections of one request")

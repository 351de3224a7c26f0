"""``python -m benchmarks.submission``: what it costs one producer to send requests: ``delay`` in a loop, a group, and bulk.

Beside them, ``delay`` in a loop and a group of a task of plain Celery, with Celery's own transport.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.demo.embedded import EmbeddedServer
from worker_config.settings import change_environment

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL = "fake:0"
MESSAGES = [{"role": "user", "content": "Write one line about the sea, and say nothing else about it. " * 3}]
VALUES: dict[str, Any] = {"messages": MESSAGES, "model": MODEL, "max_tokens": 5}


class Cost(NamedTuple):
    """Of one request, in milliseconds: processor time of the producer, and time."""

    processor_ms: float
    wall_ms: float


def main() -> int:
    """Measure in turns, and print the least of each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.submission", description=__doc__)
    parser.add_argument("--requests", type=int, default=1_000, help="in each turn (1000)")
    parser.add_argument("--turns", type=int, default=5, help="turns (5)")
    options = parser.parse_args()
    with EmbeddedServer() as server:
        change_environment(REDIS_URL=server.url, CELERY_MLX_ALLOW_FAKE="1", CELERY_MLX_QUEUE_FLOOR="10000000")
        ways = {**_ways(), **_plain_ways(server.url)}
        for send in ways.values():
            send(10)
        turns = [{name: _cost(send, options.requests) for name, send in ways.items()} for _ in range(options.turns)]
    least = {name: Cost(*map(min, zip(*(turn[name] for turn in turns), strict=True))) for name in ways}
    for name, cost in least.items():
        times = least["delay"].processor_ms / cost.processor_ms, least["delay"].wall_ms / cost.wall_ms
        print(
            f"{name:12} {1e3 / cost.wall_ms:8.0f} requests/s ({times[1]:4.1f} times delay)   "
            f"{cost.processor_ms:6.3f} ms of processor time ({times[0]:4.1f} times less)"
        )
    return 0


def _cost(send: Callable[[int], None], requests: int) -> Cost:
    processor_s, begun = time.process_time(), time.perf_counter()
    send(requests)
    return Cost(1e3 * (time.process_time() - processor_s) / requests, 1e3 * (time.perf_counter() - begun) / requests)


def _ways() -> dict[str, Callable[[int], None]]:
    from celery import group

    from tasks import app, generate
    from tasks.bulk.line import Line
    from tasks.bulk.requests import Requests
    from tasks.bulk.source import Source

    requests = Requests(app, 9)
    sent = 0

    def delay(count: int) -> None:
        for _ in range(count):
            generate.delay(**VALUES)

    def together(count: int) -> None:
        group(generate.s(**VALUES) for _ in range(count)).apply_async()

    def bulk(count: int) -> None:
        """What a driver does for each line, from its text to the queue, without a window."""
        nonlocal sent
        lines = Source([VALUES] * count, {}).lines()
        page: dict[str, tuple[str, Line]] = {}
        for line in lines:
            assert isinstance(line, Line)
            sent += 1
            page[f"bulk-0-{sent}"] = (requests.queue_of(MODEL), line)
            if len(page) == 200:
                requests.send(page)
                page = {}
        requests.send(page)

    return {"delay": delay, "group": together, "bulk": bulk}


def _plain_ways(redis_url: str) -> dict[str, Callable[[int], None]]:
    from celery import Celery, group

    celerys = Celery("plain", broker=redis_url, backend=redis_url)

    @celerys.task(name="benchmarks.plain", ignore_result=True)
    def plain(**values: Any) -> None: ...

    def delay(count: int) -> None:
        for _ in range(count):
            plain.delay(**VALUES)

    def together(count: int) -> None:
        group(plain.s(**VALUES) for _ in range(count)).apply_async()

    return {"plain delay": delay, "plain group": together}


if __name__ == "__main__":
    sys.exit(main())

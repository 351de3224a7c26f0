"""``python -m benchmarks.submission``: requests per second that one producer sends: ``delay`` in a loop, a group, and bulk."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, Any

from tasks.demo.embedded import EmbeddedServer
from worker_config.settings import change_environment

if TYPE_CHECKING:
    from collections.abc import Callable

MODEL = "fake:0"
MESSAGES = [{"role": "user", "content": "Write one line about the sea, and say nothing else about it. " * 3}]


def main() -> int:
    """Measure in turns, and print the best of each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.submission", description=__doc__)
    parser.add_argument("--requests", type=int, default=3_000, help="in each turn (3000)")
    parser.add_argument("--turns", type=int, default=3, help="turns (3)")
    options = parser.parse_args()
    with EmbeddedServer() as server:
        change_environment(REDIS_URL=server.url, CELERY_MLX_ALLOW_FAKE="1", CELERY_MLX_QUEUE_FLOOR="10000000")
        ways = _ways()
        ways["delay"](1)
        rates = {name: [_rate(send, options.requests) for _ in range(options.turns)] for name, send in ways.items()}
    best = {name: max(found) for name, found in rates.items()}
    for name, rate in best.items():
        print(f"{name:8} {rate:8.0f} requests/s  {rate / best['delay']:.1f} times delay")
    return 0


def _rate(send: Callable[[int], None], requests: int) -> float:
    begun = time.perf_counter()
    send(requests)
    return requests / (time.perf_counter() - begun)


def _ways() -> dict[str, Callable[[int], None]]:
    from celery import group

    from tasks import app, generate
    from tasks.bulk.line import Line
    from tasks.bulk.requests import Requests
    from tasks.bulk.source import Source

    values: dict[str, Any] = {"messages": MESSAGES, "model": MODEL, "max_tokens": 5}
    requests = Requests(app, 9)
    sent = 0

    def delay(count: int) -> None:
        for _ in range(count):
            generate.delay(**values)

    def together(count: int) -> None:
        group(generate.s(**values) for _ in range(count)).apply_async()

    def bulk(count: int) -> None:
        """What a driver does for each line, from its text to the queue, without a window."""
        nonlocal sent
        lines = Source([values] * count, {}).lines()
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


if __name__ == "__main__":
    sys.exit(main())

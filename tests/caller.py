"""A program that calls a producer's functions and says what came of it: for tests of calls that might never come back.

It reads a line of JSON from its input for some calls at once, and answers with one::

    {"calls": ["delay"], "url": "redis://...", "id": "...", "threads": 8}
    {"delay": ["returned", "BrokerUnavailable", ...]}

Each URL is an application of its own, so that the first call with one is that of a fresh process.
"""

from __future__ import annotations

import asyncio
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from typing import Any

from celery import Celery

from worker_config.celeryconfig import worker_options
from worker_config.settings import current_settings


@cache
def application(url: str) -> Any:
    """The task of an application whose Redis is there."""
    app = Celery("shop", include=["tasks.generate"], set_as_current=False)
    app.conf.update(worker_options(replace(current_settings(), redis_url=url)))
    app.conf.task_routes = ("tasks.models.routing.route_task",)
    app.loader.import_default_modules()
    return app.tasks["tasks.generate"]


async def _astream(result: Any) -> None:
    async for _ in result.astream():
        pass


def _call(task: Any, call: str, task_id: str) -> None:
    result = task.AsyncResult(task_id)
    if call == "delay":
        task.delay(prompt="x", model="fake:1", max_tokens=1)
    elif call == "get":
        result.get()
    elif call == "stream":
        for _ in result.stream():
            pass
    elif call == "astream":
        asyncio.run(_astream(result))
    elif call == "revoke":
        result.revoke(terminate=True)
    elif call == "revoke_group":
        task.app.GroupResult("group", [result, result]).revoke(terminate=True)
    elif call == "position":
        result.position()
    elif call == "state":
        assert result.state
    else:
        raise ValueError(call)


def _outcome(task: Any, call: str, task_id: str) -> str:
    try:
        _call(task, call, task_id)
    except Exception as error:  # noqa: BLE001  (whatever it is, it is the outcome)
        return type(error).__name__
    return "returned"


def main() -> None:
    """Call until the input ends."""
    with ThreadPoolExecutor(64) as threads:
        for line in sys.stdin:
            order = json.loads(line)
            task = application(order["url"])
            begun = {
                call: [threads.submit(_outcome, task, call, order["id"]) for _ in range(order["threads"])]
                for call in order["calls"]
            }
            print(
                json.dumps({call: [outcome.result() for outcome in found] for call, found in begun.items()}), flush=True
            )


if __name__ == "__main__":
    main()

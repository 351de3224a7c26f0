"""A caller's wait, and when it comes to look."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tasks.broker.waiting.result_watch import ResultWatch
from tasks.broker.waiting.waiting import Wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Consumer:
    """Hands out one watch; nothing is read, except what a test gives it."""

    def __init__(self) -> None:
        self.watches: list[ResultWatch] = []

    def watch(self, task_id: str, news: Callable[[ResultWatch], None], unknown_after_s: float) -> ResultWatch:
        self.watches.append(ResultWatch(task_id, task_id, news, unknown_after_s))
        return self.watches[-1]

    def read(self, reply: bytes | None, now: float) -> None:
        """What the watch is told by one look at Redis."""
        self.watches[0].take([reply], now)
        self.watches[0].deliver()

    def leave(self, task_ids: Iterable[str]) -> None: ...

    def unwatched(self) -> list[str]:
        return []

    def decode(self, payload: bytes) -> Any:
        return json.loads(payload)

    def give(self, task_id: str, payload: bytes, waiting: Iterable[Any]) -> None: ...


def test_a_state_is_told_once() -> None:
    """Also to a caller that looks after two pieces of news, the first of which came before the state."""
    states: list[str] = []
    consumer: Any = Consumer()
    result = SimpleNamespace(id="t1", ignored=False, _cache=None)
    with Wait(consumer, result, None, lambda meta: states.append(meta["status"])) as wait:
        consumer.read(None, 0.0)
        consumer.read(b'{"status": "PROGRESS"}', 1.0)
        wait.step()
        assert states == ["PROGRESS"]
        consumer.read(b'{"status": "RETRY"}', 2.0)
        wait.step()
    assert states == ["PROGRESS", "RETRY"]

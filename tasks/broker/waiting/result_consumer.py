"""Notifies this process's waits for results (:mod:`tasks.broker.waiting.waiting`)."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

from celery.backends.asynchronous import BaseResultConsumer, Drainer
from kombu.utils.encoding import bytes_to_str

from tasks.broker.inventory.search import is_expected
from tasks.broker.waiting.before import pending_before
from tasks.broker.waiting.result_watch import ResultWatch
from tasks.broker.waiting.waiting import Wait, has_come
from tasks.server.subscriptions import SUBSCRIPTIONS
from tasks.server.trouble import is_away

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


class ResultConsumer(BaseResultConsumer):
    """Hears of results, for each caller that waits for some."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.drainer = Drainer(self)  # Celery's for gevent and eventlet calls drain_events without a pause
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._giving = threading.RLock()
        self._waited_for: Counter[str] = Counter()

    def _wait_for_pending(
        self, result: Any, timeout: float | None = None, on_interval: Any = None, on_message: Any = None, **_: Any
    ) -> Iterator[None]:
        try:
            with Wait(self, result, timeout, on_message) as wait:
                while wait.waiting:
                    wait.step()
                    yield
                    if on_interval is not None and wait.waiting:
                        _call(on_interval)
        finally:
            self._forget(result)

    def watch(self, task_id: str, news: Callable[[ResultWatch], None], unknown_after_s: float) -> ResultWatch:
        """Follow one result until its watch is closed, and :meth:`leave` says so."""
        backend: Any = self.backend
        key = bytes_to_str(backend.get_key_for_task(task_id))
        found = ResultWatch(task_id, key, news, unknown_after_s if backend.is_brokers else 0.0)
        with self._lock:
            self._waited_for[task_id] += 1
        SUBSCRIPTIONS.open(backend.where, found)
        return found

    def leave(self, task_ids: Iterable[str]) -> None:
        """Note that these are not followed any more."""
        with self._lock:
            for task_id in task_ids:
                self._waited_for[task_id] -= 1
                if not self._waited_for[task_id]:
                    del self._waited_for[task_id]

    def unwatched(self) -> list[str]:
        """Results that somebody wants to be called back for, and that nobody waits for."""
        pending = {task_id for found in self._pending_results for task_id in list(found)}
        with self._lock:
            return list(pending - self._waited_for.keys())

    def decode(self, payload: bytes) -> dict[str, Any]:
        """Return a result's metadata from its stored text."""
        meta: dict[str, Any] = self.backend.decode_result(payload)
        return meta

    def give(self, task_id: str, payload: bytes, waiting: Iterable[Any]) -> None:
        """Give a stored result to those that are waited for, and to all others of this process that have the same id."""
        with self._giving:  # a promise that two threads fulfil at once calls back twice
            for result in [*waiting, *self._pending(task_id)]:
                if not result._cache:
                    # Each has its own: Python writes into an exception that is raised.
                    result._maybe_set_cache(self.decode(payload))

    def pending_before(self, result: Any) -> list[Any]:
        """Return the results that have to end next before this one; itself where Redis cannot be asked."""
        try:
            return pending_before(result)
        except Exception as error:
            if is_away(error):
                return [result]
            raise

    def is_expected(self, task_id: str) -> bool:
        """Whether any message leads to this request."""
        return is_expected(self.backend.app, task_id)

    def start(self, initial_task_id: str, **_: Any) -> None:
        """Nothing: each wait listens for itself."""

    def consume_from(self, task_id: str) -> None:
        """Nothing: each wait listens for itself."""

    def cancel_for(self, task_id: str) -> None:
        """Nothing: a wait stops listening when it ends."""

    def drain_events(self, timeout: float | None = None) -> None:
        """Nothing: the subscription's thread notifies the waits."""

    def on_after_fork(self) -> None:
        """Nobody of the parent waits here, and a lock may have been held."""
        self._reset()

    def _pending(self, task_id: str) -> list[Any]:
        return [result for found in self._pending_results for result in list(found.get(task_id, {}).values())]

    def _forget(self, result: Any) -> None:
        """Let go of a result that was waited for in vain, unless somebody wants to be called back for it."""
        if not has_come(result) and hasattr(result, "id") and not any(result.on_ready.listeners):
            self.backend._remove_pending_result(result)


def _call(on_interval: Callable[[], Any]) -> None:
    """For a chain it asks whether what comes before has failed, which without Redis is not known yet."""
    try:
        on_interval()
    except Exception as error:
        if not is_away(error):
            raise

"""The pool: what becomes of a request whose thread cannot be started, and of one that has ended."""

from __future__ import annotations

import gc
import weakref
from typing import Any, ClassVar

import pytest
from celery.exceptions import Reject
from kombu.asynchronous import Hub, set_event_loop

from tasks.worker.celery.pool import EnginePool
from tests.support import wait_until


def test_no_thread_no_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine out of threads raises, for the message to come back, and the slot is free again."""
    pool: Any = EnginePool(limit=2)

    def refuse(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(pool.executor, "submit", refuse)
    with pytest.raises(RuntimeError, match="new thread"):
        pool.on_apply(lambda: None, correlation_id="t1", timeout=60.0)
    assert pool.room.in_use() == 0
    assert not pool._jobs
    pool.executor.shutdown()


class Request:
    """What Celery's request is to the pool: it holds the message, and hears of its end."""

    delivery_info: ClassVar[dict[str, str]] = {"routing_key": "q"}
    message = None
    id = "t1"

    def __init__(self) -> None:
        self.given_back = False

    def on_success(self, *_: Any) -> None:
        """Nothing."""

    def on_timeout(self, soft: bool, limit_s: float) -> None:
        """Nothing."""

    def reject(self, requeue: bool = False) -> None:
        """Note that the message goes back to its queue."""
        self.given_back = requeue


@pytest.mark.parametrize("error", [MemoryError(), Reject("its result cannot be stored", requeue=True)])
def test_what_celery_does_not_end_goes_back(error: Exception) -> None:
    """Where Celery's end of a request fails, nobody else would ever return its message: this worker is alive and holds it."""
    pool: Any = EnginePool(limit=2)
    request = Request()

    def run() -> None:
        raise error

    try:
        pool.on_apply(run, (), {}, request.on_success, correlation_id="t1")
        wait_until(lambda: pool.room.in_use() == 0, about="the slot being free")
    finally:
        pool.executor.shutdown()
    assert request.given_back


def test_a_time_limit_keeps_nothing() -> None:
    """A request that has ended is not held in memory until its time limit would have passed."""
    hub = Hub()
    set_event_loop(hub)
    pool: Any = EnginePool(limit=2)
    try:
        request = Request()
        kept = weakref.ref(request)
        options = {"timeout": 3600.0, "soft_timeout": 1800.0, "timeout_callback": request.on_timeout}
        pool.on_apply(lambda: None, (), {}, request.on_success, correlation_id="t1", **options)
        del request, options
        wait_until(lambda: pool.room.in_use() == 0)
        wait_until(lambda: gc.collect() is not None and kept() is None, about="the request being let go")
    finally:
        pool.executor.shutdown()
        set_event_loop(None)
        hub.close()

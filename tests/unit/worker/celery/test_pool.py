"""The pool: what becomes of a request whose thread cannot be started."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.worker.celery.pool import EnginePool


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

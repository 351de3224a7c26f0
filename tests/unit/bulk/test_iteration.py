"""Going through a job's lines with asyncio: the event loop never stands still."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from tasks.bulk.iteration import afinished_of


def test_cancelled_while_the_input_is_read() -> None:
    """Who is cancelled while a large file is looked at does not wait for the end of that."""
    begun, gate = threading.Event(), threading.Event()

    def make() -> Any:
        begun.set()
        gate.wait()
        raise AssertionError("nobody asks any more")

    async def read() -> None:
        async for _ in afinished_of(make):
            pass

    async def cancelled() -> None:
        task = asyncio.create_task(read())
        await asyncio.to_thread(begun.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not gate.is_set()
        gate.set()

    asyncio.run(cancelled())

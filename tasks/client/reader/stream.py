"""Reading a journal as chunks: from its start, live to its end, blocking or with asyncio."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Generator
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from tasks.client.reader.journal_watch import JournalWatch
from tasks.client.reader.reading import Reading
from tasks.errors import InvalidRequest
from tasks.server.subscriptions import SUBSCRIPTIONS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    from tasks.client.reader.chunks import Chunk
    from tasks.client.reader.journal_watch import Event
    from tasks.client.reader.reading import Stored
    from tasks.server.connection import Endpoint
    from tasks.server.subscriptions import Subscriptions


class ChunkStream(Generator["Chunk", None, None]):
    """A stream that is read by ``for``, and by ``async for`` as well, which then reads ``astream()``.

    Args:
        blocking: the generator that ``for`` reads.
        begin_async: makes the generator that ``async for`` reads, when it begins.
    """

    def __init__(self, blocking: Generator[Chunk, None, None], begin_async: Callable[[], AsyncIterator[Chunk]]) -> None:
        self._blocking = blocking
        self._begin_async = begin_async

    def __next__(self) -> Chunk:
        return next(self._blocking)

    def send(self, value: None, /) -> Chunk:
        """A generator's."""
        return self._blocking.send(value)

    def throw(self, *error: Any) -> Chunk:
        """A generator's."""
        return self._blocking.throw(*error)

    def close(self) -> None:
        """Leave the stream."""
        self._blocking.close()

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self._begin_async()


def follow(
    where: Endpoint,
    task_id: str,
    stored: Callable[[], Stored],
    leave: Callable[[], None] | None = None,
    *,
    timeout: float | None = None,
    idle_timeout: float | None = None,
    unknown_after_s: float = 0.0,
    is_mentioned: Callable[[], bool] = bool,
    subscriptions: Subscriptions = SUBSCRIPTIONS,
) -> Generator[Chunk, None, None]:
    """The request's chunks, each index once and in order, until its end.

    ``stored`` is asked when the journal is silent: a journal that has expired, or that Redis lost, is made up for by the
    stored result, as one chunk of each kind. ``leave`` is called when the caller stops reading before the end. With
    ``unknown_after_s`` 0 a reader that comes before the producer waits for the request; ``is_mentioned`` is asked before one is
    called unknown.

    Raises:
        StreamTimeout: the end did not come within ``timeout`` s, or no chunk within ``idle_timeout`` s.
        UnknownRequest: the request is in no queue, and has neither journal nor result, for ``unknown_after_s`` s.
        BrokerUnavailable: Redis could not be reached at all, or not for ``redis_patience_s``.
        GenerationError: the request's own error, or what Celery stored as such.
        InvalidRequest: the process has forked since, and this is the child, where nobody follows the journal.
    """
    owner = os.getpid()
    events: SimpleQueue[list[Event]] = SimpleQueue()
    place = JournalWatch(task_id, events.put, where.database)
    reading = Reading(task_id, place, timeout, idle_timeout, unknown_after_s)
    subscriptions.open(where, place)
    try:
        while not reading.is_over:
            _require_own(task_id, owner)
            patience_s = reading.patience_s(waiting=events.empty())
            try:
                batch = events.get(timeout=patience_s)
            except Empty:
                continue
            for event in batch:
                yield from reading.complete(event, stored()) if reading.doubts(event) else reading.take(event)
                if reading.seems_unknown:
                    reading.conclude(is_mentioned=is_mentioned())
            reading.come_back()
    finally:
        if os.getpid() == owner:  # the parent reads on
            place.close()
            if leave is not None and not reading.is_over:
                leave()


def _require_own(task_id: str, owner: int) -> None:
    if os.getpid() != owner:
        raise InvalidRequest(
            f"request {task_id}: this stream was begun before a fork: call stream() again in this process"
        )


async def afollow(
    where: Endpoint,
    task_id: str,
    stored: Callable[[], Stored],
    leave: Callable[[], None] | None = None,
    *,
    timeout: float | None = None,
    idle_timeout: float | None = None,
    unknown_after_s: float = 0.0,
    is_mentioned: Callable[[], bool] = bool,
    subscriptions: Subscriptions = SUBSCRIPTIONS,
) -> AsyncGenerator[Chunk, None]:
    """Do as :func:`follow` for asyncio; functions that may block are called on another thread."""
    loop = asyncio.get_running_loop()
    events: asyncio.Queue[list[Event]] = asyncio.Queue()

    def deliver(batch: list[Event]) -> None:
        with suppress(RuntimeError):  # the loop was closed, and its readers with it
            loop.call_soon_threadsafe(events.put_nowait, batch)

    place = JournalWatch(task_id, deliver, where.database)
    reading = Reading(task_id, place, timeout, idle_timeout, unknown_after_s)
    subscriptions.open(where, place)
    try:
        while not reading.is_over:
            patience_s = reading.patience_s(waiting=events.empty())
            try:
                async with asyncio.timeout(patience_s):
                    batch = await events.get()
            except TimeoutError:
                continue
            for event in batch:
                doubts = reading.doubts(event)
                chunks = reading.complete(event, await asyncio.to_thread(stored)) if doubts else reading.take(event)
                for chunk in chunks:
                    yield chunk
                if reading.seems_unknown:
                    reading.conclude(is_mentioned=await asyncio.to_thread(is_mentioned))
            reading.come_back()
    finally:
        place.close()
        if leave is not None and not reading.is_over:
            await asyncio.to_thread(leave)

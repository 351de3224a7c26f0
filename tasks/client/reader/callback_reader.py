"""Reads a journal on an event loop without a task for each reader: a callback takes the events.

A generator of :func:`tasks.client.reader.stream.afollow` needs a task, a queue and a context: 8 KiB, and two turns of the event
loop for each token. A process that reads a thousand journals at once cannot spend that.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from tasks.client.reader.journal_watch import JournalWatch
from tasks.client.reader.reading import Reading
from tasks.client.reader.where import journals_of
from tasks.server.subscriptions import SUBSCRIPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.client.reader.chunks import Chunk
    from tasks.client.reader.journal_watch import Event
    from tasks.client.reader.mailbox import Mailbox
    from tasks.client.result import GenerateResult


class CallbackReader:
    """Reads one request's journal from its start. It begins at once, on the running event loop, which calls all callbacks.

    Args:
        result: the request.
        take: called with chunks, in order, each index once.
        fail: called with the error that ends the answer; nothing follows it.
        mailbox: brings events from the subscription's thread to the event loop.
    """

    __slots__ = (
        "_completing",
        "_events",
        "_fail",
        "_loop",
        "_mailbox",
        "_place",
        "_reading",
        "_result",
        "_take",
        "_timer",
    )

    def __init__(
        self,
        result: GenerateResult,
        take: Callable[[list[Chunk]], None],
        fail: Callable[[Exception], None],
        mailbox: Mailbox,
    ) -> None:
        self._result, self._take, self._fail, self._mailbox = result, take, fail, mailbox
        self._loop = asyncio.get_running_loop()
        self._events: list[Event] = []
        self._completing: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        where = journals_of(result.app)
        self._place = JournalWatch(result.id, self._post, where.database)
        self._reading = Reading(result.id, self._place, None, None, result.unknown_after_s)
        SUBSCRIPTIONS.open(where, self._place)

    def close(self) -> None:
        """Read no further. Nothing is called after this."""
        self._reading.is_over = True
        self._end()

    def _end(self) -> None:
        self._events.clear()
        self._place.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._completing is not None:
            self._completing.cancel()

    def _post(self, events: list[Event]) -> None:
        """Called by the subscription's thread."""
        with suppress(RuntimeError):  # the loop was closed, and its readers with it
            self._mailbox.post(self._loop, self._hear, events)

    def _hear(self, events: list[Event]) -> None:
        if self._reading.is_over:
            return
        self._events += events
        if self._completing is None:
            self._proceed()

    def _proceed(self) -> None:
        """Take events up to one that needs a look at Celery's result, which may block."""
        chunks: list[Chunk] = []
        events, self._events = self._events, []
        try:
            for number, event in enumerate(events):
                if self._reading.is_over:
                    break
                if self._reading.doubts(event):
                    self._events = events[number + 1 :]
                    self._completing = self._loop.create_task(self._complete(event))
                    break
                chunks += self._reading.take(event)
        except Exception as error:  # the answer's own  # noqa: BLE001
            self._hand_over(chunks, error)
        else:
            self._hand_over(chunks)

    async def _complete(self, event: Event) -> None:
        chunks: list[Chunk] = []
        try:
            chunks = self._reading.complete(event, await asyncio.to_thread(self._result._stored))
            if self._reading.seems_unknown:
                self._reading.conclude(is_mentioned=await asyncio.to_thread(self._result.is_mentioned))
        except Exception as error:  # whatever Celery has stored of a task that failed  # noqa: BLE001
            self._completing = None
            self._hand_over(chunks, error)
        else:
            self._completing = None
            self._hand_over(chunks)
            self._proceed()

    def _hand_over(self, chunks: list[Chunk], error: Exception | None = None) -> None:
        if chunks:
            self._take(chunks)
        if error is not None:
            self._reading.is_over = True
            self._fail(error)
        if self._reading.is_over:
            self._end()
        else:
            self._look_again_in_time()

    def _look_again_in_time(self) -> None:
        """A request that nobody knows is looked for once more when it has been unknown for long enough."""
        if self._timer is not None:
            self._timer.cancel()
        patience_s = self._reading.patience_s(waiting=True)
        self._timer = None if patience_s is None else self._loop.call_later(patience_s, self._look_again_in_time)

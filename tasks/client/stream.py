"""Reading a journal as chunks: from its start, live to its end, blocking or with asyncio."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from tasks.client.chunks import Chunk
from tasks.client.subscription import Event, Quiet, watch
from tasks.errors import BrokerUnavailable, Cancelled, GenerationError, StreamTimeout, error_for
from tasks.messages.journal import Error

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from tasks.client.subscription import Watch
    from tasks.messages.answer import Usage
    from tasks.server.connection import Endpoint

#: A reader that has not reached Redis once by then is told so; one that has waits for Redis to come back.
FIRST_CONTACT_S = 10.0


@dataclass(slots=True, frozen=True, kw_only=True)
class Stored:
    """What Celery's result backend says of a request. ``final``: it will not change any more."""

    state: str = ""
    final: bool = False
    text: str = ""
    reasoning: str = ""
    logprobs: list[dict[str, Any]] | None = None
    finish_reason: str = "stop"
    usage: Usage | None = None
    timing: dict[str, float | None] | None = None
    error: BaseException | None = None


def follow(
    where: Endpoint,
    task_id: str,
    stored: Callable[[], Stored],
    leave: Callable[[], None] | None = None,
    *,
    timeout: float | None = None,
    idle_timeout: float | None = None,
) -> Generator[Chunk, None, None]:
    """The request's chunks, each index once and in order, until its end.

    ``stored`` is asked when the journal is silent: a journal that has expired, or that Redis lost, is made up for by the
    stored result, as one chunk of each kind. ``leave`` is called when the caller stops reading before the end.

    Raises:
        StreamTimeout: the end did not come within ``timeout`` s, or no chunk within ``idle_timeout`` s.
        BrokerUnavailable: Redis could not be reached at all.
        GenerationError: the request's own error, or what Celery stored as such.
    """
    events: SimpleQueue[list[Event]] = SimpleQueue()
    reading = Reading(task_id, timeout, idle_timeout)
    place = reading.place = watch(where, task_id, events.put)
    try:
        while not reading.is_over:
            patience_s = reading.patience_s(waiting=events.empty())
            try:
                batch = events.get(timeout=patience_s)
            except Empty:
                continue
            for event in batch:
                yield from reading.settle(event, stored()) if reading.doubts(event) else reading.take(event)
            reading.come_back()
    finally:
        place.close()
        if leave is not None and not reading.is_over:
            leave()


async def afollow(
    where: Endpoint,
    task_id: str,
    stored: Callable[[], Stored],
    leave: Callable[[], None] | None = None,
    *,
    timeout: float | None = None,
    idle_timeout: float | None = None,
) -> AsyncGenerator[Chunk, None]:
    """:func:`follow` for asyncio; ``stored`` and ``leave`` are called on another thread, as they may block."""
    loop = asyncio.get_running_loop()
    events: asyncio.Queue[list[Event]] = asyncio.Queue()

    def deliver(batch: list[Event]) -> None:
        with suppress(RuntimeError):  # the loop was closed, and its readers with it
            loop.call_soon_threadsafe(events.put_nowait, batch)

    reading = Reading(task_id, timeout, idle_timeout)
    place = reading.place = watch(where, task_id, deliver)
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
                for chunk in reading.settle(event, await asyncio.to_thread(stored)) if doubts else reading.take(event):
                    yield chunk
            reading.come_back()
    finally:
        place.close()
        if leave is not None and not reading.is_over:
            await asyncio.to_thread(leave)


class Reading:
    """One reader's patience, and what it makes of the events: all that blocking and asyncio readers have in common."""

    def __init__(self, task_id: str, timeout: float | None, idle_timeout: float | None) -> None:
        self.task_id = task_id
        self.is_over = False
        self.place: Watch | None = None
        self._timeout, self._idle_timeout = timeout, idle_timeout
        self._began_at = self._waiting_since = self._chunk_at = time.monotonic()
        self._has_passed = False
        self._said: dict[str, list[str]] = {}
        self._next_index = 0
        self._state = ""
        self._problem = ""

    def patience_s(self, *, waiting: bool) -> float | None:
        """How long to wait for the next event; ``None`` is as long as it takes. What is there already is always taken.

        Raises:
            StreamTimeout: there is nothing, and no patience left.
        """
        if not waiting:
            return None
        now = time.monotonic()
        limits = (("timeout", self._timeout, self._began_at), ("idle_timeout", self._idle_timeout, self._waiting_since))
        left: list[float] = []
        for name, limit_s, since in limits:
            if limit_s is None:
                continue
            if now >= since + limit_s:
                raise StreamTimeout(f"request {self.task_id}: {name}={limit_s:g} s is over: {self._what_is_known()}")
            left.append(since + limit_s - now)
        return min(left, default=None)

    def come_back(self) -> None:
        """The caller has dealt with the chunks it was given, however long that took it."""
        if self._has_passed:
            self._has_passed = False
            self._waiting_since = time.monotonic()

    def doubts(self, event: Event) -> bool:
        """Whether Celery has to be asked if the request has ended, as its journal says nothing."""
        return isinstance(event, Quiet) and not event.problem and not self.is_over

    def take(self, event: Event) -> list[Chunk]:
        """The chunks of an event: one, or none.

        Raises:
            GenerationError: the event is the request's error, or Redis is out of reach.
        """
        if self.is_over:
            return []
        if isinstance(event, Chunk):
            return [self._pass(event)]
        if isinstance(event, Error):
            return self._fail(event)
        if isinstance(event, GenerationError):
            self.is_over = True
            raise event
        self._problem = event.problem
        reached = self.place is not None and self.place.reads > 0
        if not reached and time.monotonic() - self._began_at > FIRST_CONTACT_S:
            self.is_over = True
            raise BrokerUnavailable(f"request {self.task_id}: Redis cannot be reached: {self._problem}")
        return []

    def settle(self, event: Event, stored: Stored) -> list[Chunk]:
        """What follows from the stored result for a reader whose journal is silent.

        Raises:
            BaseException: the stored error.
        """
        self._problem, self._state = "", stored.state
        if not stored.final:
            return []
        if isinstance(event, Quiet) and not event.asked:
            # The journal's end comes before the result, and may have come since the stream was read.
            if self.place is not None:
                self.place.read_again()
            return []
        self.is_over = True
        if stored.error is not None:
            raise stored.error
        reasoning = self._unsaid("reasoning", stored.reasoning)
        chunks = [self._pass(Chunk(text=reasoning, index=self._next_index, kind="reasoning"))] if reasoning else []
        return [
            *chunks,
            self._pass(
                Chunk(
                    text=self._unsaid("content", stored.text),
                    index=self._next_index,
                    logprobs=stored.logprobs[self._next_index :] if stored.logprobs else None,
                    finish_reason=stored.finish_reason,
                    usage=stored.usage,
                    timing=stored.timing,
                )
            ),
        ]

    def _unsaid(self, kind: str, text: str) -> str:
        """What of a stored text this reader has not given its caller; none of it where the two are not the same answer."""
        said = "".join(self._said.get(kind, ()))
        return text.removeprefix(said) if text.startswith(said) else ""

    def _pass(self, chunk: Chunk) -> Chunk:
        self._problem, self._has_passed = "", True
        self._chunk_at = time.monotonic()
        self._said.setdefault(chunk.kind, []).append(chunk.text)
        self._next_index = chunk.index + len(chunk.ids)
        self.is_over = chunk.finish_reason is not None
        return chunk

    def _fail(self, error: Error) -> list[Chunk]:
        if error.code == Cancelled.code:
            return [self._pass(Chunk(text="", index=self._next_index, finish_reason="cancelled"))]
        self.is_over = True
        raise error_for(str(error.code))(str(error.message))

    def _what_is_known(self) -> str:
        now = time.monotonic()
        assembly = self.place.assembly if self.place is not None else None
        if self._problem:
            known = f"Redis cannot be reached ({self._problem})"
        elif assembly is None or not assembly.attempt:
            known = f"no worker has claimed it in the {now - self._began_at:.1f} s since this reader began"
        elif assembly.worker is None:
            known = f"its worker gave it back after attempt {assembly.attempt}, and no other has claimed it yet"
        elif not self._next_index:
            prompt = f", prompt of {assembly.prompt_tokens} tokens" if assembly.prompt_tokens is not None else ""
            known = f"worker {assembly.worker} has claimed it (attempt {assembly.attempt}{prompt}), no token yet"
        else:
            quiet_s = now - self._chunk_at
            known = f"worker {assembly.worker} has sent {self._next_index} tokens, the last {quiet_s:.1f} s ago"
        return known + (f" (Celery's state: {self._state})" if self._state else "")


def describe(meta: dict[str, Any]) -> Stored:
    """What a Celery result's metadata, as its backend decodes it, means for a reader."""
    state = str(meta.get("status"))
    result = meta.get("result")
    if state == "REVOKED":
        return Stored(state=state, final=True, finish_reason="cancelled")
    if state == "FAILURE":
        known = isinstance(result, BaseException)
        return Stored(state=state, final=True, error=result if known else GenerationError(str(result)))
    if state == "SUCCESS":
        answer = result if isinstance(result, dict) else {}
        return Stored(
            state=state,
            final=True,
            text=str(answer.get("text", "")),
            reasoning=str(answer.get("reasoning") or ""),
            logprobs=answer.get("logprobs"),
            finish_reason=str(answer.get("finish_reason", "stop")),
            usage=answer.get("usage"),
            timing=answer.get("timing"),
        )
    return Stored(state=state)

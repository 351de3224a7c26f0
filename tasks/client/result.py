"""The result of ``generate.delay()``: an ordinary Celery result that can also be read while it is made."""

from __future__ import annotations

import sys
from asyncio import to_thread
from contextlib import closing, suppress
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn

from celery import states
from celery.result import AsyncResult, GroupResult
from vine import barrier

from tasks.client.answers.values import ValueResult
from tasks.errors import BrokerUnavailable, GenerationError, InvalidRequest
from tasks.names import PACKAGE
from worker_config.celeryconfig import settings_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from tasks.broker.limits import Position
    from tasks.client.answers.answer import Answer
    from tasks.client.reader.chunks import Chunk
    from tasks.client.reader.reading import Stored
    from tasks.client.reader.status import CeleryState, RequestStatus
    from tasks.client.reader.stream import ChunkStream
    from tasks.server.connection import Endpoint


class GenerateResult(ValueResult, AsyncResult):
    """The result of one request; ``get()`` and all else is Celery's.

    It can be made anywhere from the task id alone (``generate.AsyncResult(task_id)``), and any number of readers may read
    it, at any time: before the request starts, in the middle, or after its end.
    """

    def stream(
        self, timeout: float | None = None, idle_timeout: float | None = None, cancel_on_close: bool = False
    ) -> ChunkStream:
        """The answer's chunks as they come: each index once, in order, to the last one, which has a ``finish_reason``.

        A cancelled request ends with the ``finish_reason`` ``cancelled`` after what was generated. Once the journal has
        expired, what is stored of the result comes as one chunk. ``async for`` reads it as :meth:`astream` does.

        Args:
            timeout: seconds to wait for the end, from the first chunk asked for.
            idle_timeout: seconds to wait for each chunk. The time that the caller spends on one does not count.
            cancel_on_close: cancel the request when this reader, once begun, leaves before its end for whatever reason.

        Raises:
            StreamTimeout: nothing came in time; the message says what is known. The request itself goes on.
            UnknownRequest: nobody knows the id, for ``unknown_after_s``.
            GenerationError: the request failed; the class says why.
            BrokerUnavailable: Redis cannot be reached, or refuses this client.
        """
        from tasks.client.reader.stream import ChunkStream, follow

        return ChunkStream(
            follow(*self._place(cancel_on_close), **self._terms(timeout, idle_timeout)),
            lambda: self.astream(timeout, idle_timeout, cancel_on_close),
        )

    def astream(
        self, timeout: float | None = None, idle_timeout: float | None = None, cancel_on_close: bool = False
    ) -> AsyncGenerator[Chunk, None]:
        """:meth:`stream` for asyncio; it never blocks the event loop."""
        from tasks.client.reader.stream import afollow

        return afollow(*self._place(cancel_on_close), **self._terms(timeout, idle_timeout))

    def _place(self, cancel_on_close: bool) -> tuple[Endpoint, str, Callable[[], Stored], Callable[[], None] | None]:
        """Where a reader reads, and what it does when it leaves early."""
        from tasks.client.reader.where import journals_of

        return journals_of(self.app), self.id, self._stored, self._cancel if cancel_on_close else None

    def _terms(self, timeout: float | None, idle_timeout: float | None) -> dict[str, Any]:
        """For how long a reader waits."""
        return {
            "timeout": timeout,
            "idle_timeout": idle_timeout,
            "unknown_after_s": self.unknown_after_s,
            "is_mentioned": self.is_mentioned,
        }

    def revoke(
        self,
        connection: Any = None,
        terminate: bool = False,
        signal: str | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """Celery's ``revoke``, and a mark in Redis beside it, which workers that start later honour too.

        ``terminate`` frees the request's place in the batch at once; without it a request that has started goes on. A user whom
        Redis does not let broadcast to workers (docs/security.md) cancels by the mark alone: at the worker's next heartbeat.

        Raises:
            BrokerUnavailable: Redis cannot be reached, or refuses this client.
        """
        from tasks.broker.schedule import hasten
        from tasks.broker.sending import pool_free_control, sending
        from tasks.journal.writer import mark_cancelled
        from tasks.server.connection import connect
        from tasks.server.trouble import is_denied

        with closing(connect(self.app)) as client:
            mark_cancelled(client, self.id, running=terminate)
            with suppress(GenerationError):  # the workers do it, too, where this client may not
                hasten(client, [self.id])
        with sending(self.app), self.app.connection_for_write() as own:
            try:
                return pool_free_control(self.app).broadcast(
                    "revoke",
                    {"task_id": self.id, "terminate": terminate, "signal": signal},
                    connection=connection or own,
                    reply=wait,
                    timeout=timeout,
                )
            except Exception as error:
                if not is_denied(error):
                    raise
                return None

    def then(self, callback: Any, on_error: Any = None, weak: bool = False) -> Any:
        """Celery's ``then``, for a result that is there already too."""
        from tasks.broker.results import Backend

        if isinstance(callback, barrier):  # a group's
            if isinstance(self.backend, Backend):
                # It is waited for member by member. Were it pending, it would be kept for ever where nobody waits.
                return self.on_ready.then(callback, on_error)
            return super().then(callback, on_error, weak)
        found = super().then(callback, on_error, weak)
        self._get_task_meta()
        return found

    def __await__(self) -> Generator[Any, None, Answer]:
        """``await result`` is :meth:`get` for asyncio; it never blocks the event loop."""
        return self._answer().__await__()

    async def _answer(self) -> Answer:
        async for _ in GenerateResult.astream(self):
            pass
        # The result is stored right behind the journal's end.
        return await to_thread(self.get)

    @property
    def unknown_after_s(self) -> float:
        """How long a request is looked for of which Redis knows nothing; 0 is for ever."""
        return settings_of(self.app).unknown_after_s

    def is_mentioned(self) -> bool:
        """Whether any message leads to this request, though nothing else does; ``True`` where that cannot be seen.

        A request that this process has sent, and that Redis has lost since, is sent again first.
        """
        from tasks.broker.search import is_expected

        return is_expected(self.app, self.id)

    def is_lost(self) -> bool:
        """Whether Redis knows nothing of this request any more, which has no result; ``False`` where that cannot be seen."""
        from tasks.broker.search import is_lost

        return is_lost(self.app, self.id)

    @property
    def status(self) -> CeleryState:
        """``result.status()`` is how far the request has come; without the call it is Celery's :attr:`state`, as ever.

        Raises:
            BrokerUnavailable: Redis cannot be reached, or refuses this client.
        """
        from celery.backends.base import DisabledBackend

        from tasks.client.reader.status import CeleryState
        from tasks.server.connection import translated

        with translated(f"request {self.id}"):
            state = states.PENDING if isinstance(self.backend, DisabledBackend) else self.state
        return CeleryState(state, self._look)

    def _look(self) -> RequestStatus:
        from tasks.client.reader.status import read_status
        from tasks.server.connection import endpoint

        return read_status(endpoint(self.app), self.id, self._stored, settings_of(self.app))

    def what_is_known(self) -> str:
        """How far the request has come, for somebody who waited for too long."""
        try:
            return str(self._look())
        except GenerationError as error:
            return str(error)

    def maybe_throw(self, propagate: bool = True, callback: Any = None) -> Any:
        """Celery's. It is how ``get()`` asks whether what comes before has failed, which without Redis is not known yet."""
        from tasks.server.trouble import is_away

        try:
            return super().maybe_throw(propagate, callback)
        except Exception as error:
            if self._cache or not is_away(error):
                raise
            return None

    def position(self) -> Position | None:
        """How many requests will be taken before this one, and how long that may take; ``None`` once it waits no more.

        Raises:
            BrokerUnavailable: Redis cannot be reached, or refuses this client.
        """
        from tasks.broker.limits import position
        from tasks.server.connection import connect

        with closing(connect(self.app)) as client:
            return position(client, self.id)

    def __reduce__(self) -> Any:
        """For another process or thread, where this project's application need not be the current one."""
        ours = sys.modules.get(f"{PACKAGE}.celery")
        if ours is None or self.app is not ours.app:
            return super().__reduce__()
        return _of_this_project, (type(self), self.id, self.parent)

    def _cancel(self) -> None:
        self.revoke(terminate=True)

    def _stored(self) -> Stored:
        """What Celery has stored; an unknown state where it stores nothing or cannot be asked just now."""
        from celery.backends.base import DisabledBackend
        from celery.backends.rpc import RPCBackend

        from tasks.client.reader.reading import Stored, describe
        from tasks.server.connection import translated

        if isinstance(self.backend, DisabledBackend):
            return Stored(absent=True)
        if isinstance(self.backend, RPCBackend):  # whose results are messages, each for one look
            return Stored()
        try:
            with translated(f"result of {self.id}"):
                stored = describe(self.backend.get_task_meta(self.id, cache=False))
                return self._follows_from(stored) if stored.absent and self.parent is not None else stored
        except BrokerUnavailable:
            return Stored()

    def _follows_from(self, stored: Stored) -> Stored:
        """What is known of a link of a chain that has no result, by those before it.

        It is sent once all before it have ended. Where one was revoked, or is a chord's body that failed, it is never sent, and
        Celery stores nothing for it. The members of a chord's header are passed over: their errors are stored for its body.
        Nor is it sent where Redis has lost the one that has to end next.
        """
        from tasks.broker.before import lost_of, pending_before
        from tasks.client.reader.reading import describe

        for before in self._parents():
            if not isinstance(before, GroupResult) and before.state in states.PROPAGATE_STATES:
                return describe(before.backend.get_task_meta(before.id))
        pending = pending_before(self)
        if not pending:
            return stored
        is_lost = lost_of(pending) is not None
        return replace(stored, absent=is_lost, expected=not is_lost)


class EmbedResult(GenerateResult):
    """The result of ``embed.delay()``: all vectors, or one error."""

    made = "vectors"

    def stream(self, *_: Any, **__: Any) -> NoReturn:
        """Nothing streams.

        Raises:
            InvalidRequest: always.
        """
        raise InvalidRequest(f"{self.made} do not stream: use get(), or await the result")

    astream = stream


class RerankResult(EmbedResult):
    """The result of ``rerank.delay()``: all scores, or one error."""

    made = "scores"


def _of_this_project(kind: type[GenerateResult], task_id: str, parent: Any) -> GenerateResult:
    """A result of this project's application, out of a pickle."""
    return kind(task_id, app=import_module(f"{PACKAGE}.celery").app, parent=parent)

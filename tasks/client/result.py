"""The result of ``generate.delay()``: a Celery result that can also be read while the answer is made."""

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

    from tasks.broker.queues.limits import Position
    from tasks.client.answers.answer import Answer
    from tasks.client.reader.chunks import Chunk
    from tasks.client.reader.reading import Stored
    from tasks.client.reader.status import CeleryState, RequestStatus
    from tasks.client.reader.stream import ChunkStream
    from tasks.server.connection import Endpoint


class GenerateResult(ValueResult, AsyncResult):
    """The result of one request. ``get()`` and all methods that are not here are Celery's.

    Any process can make it from the task id (``generate.AsyncResult(task_id)``). Any number of readers may read it at any time:
    before the request starts, while it runs, or after its end.
    """

    def stream(
        self, timeout: float | None = None, idle_timeout: float | None = None, cancel_on_close: bool = False
    ) -> ChunkStream:
        """Return an iterator of the answer's chunks, each index once and in order. The last chunk has a ``finish_reason``.

        A cancelled request yields its generated text, and then the ``finish_reason`` ``cancelled``. Once the journal has expired,
        the stored result comes as one chunk. ``async for`` reads the stream as :meth:`astream` does.

        Args:
            timeout: seconds to wait for the end, from the first chunk asked for.
            idle_timeout: seconds to wait for each chunk. The time that the caller spends on one does not count.
            cancel_on_close: whether to cancel the request if this reader has begun and leaves before the end.

        Raises:
            StreamTimeout: no chunk came in time; the message has the request's status. The request itself continues.
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
        """Do as :meth:`stream` without blocking the event loop."""
        from tasks.client.reader.stream import afollow

        return afollow(*self._place(cancel_on_close), **self._terms(timeout, idle_timeout))

    def _place(self, cancel_on_close: bool) -> tuple[Endpoint, str, Callable[[], Stored], Callable[[], None] | None]:
        """Return the place of the journal, the ways to read the stored result and to leave early."""
        from tasks.client.reader.where import journals_of

        return journals_of(self.app), self.id, self._stored, self._cancel if cancel_on_close else None

    def _terms(self, timeout: float | None, idle_timeout: float | None) -> dict[str, Any]:
        """Return the times that bound a reader's waits."""
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
        """Revoke the task as Celery does, and leave a mark in Redis, which workers that start later honour, too.

        ``terminate`` frees the request's place in the batch at once; without it a request that has started continues. If Redis
        does not let a user broadcast to workers (docs/security.md), the mark alone cancels, at the worker's next heartbeat.
        With ``wait`` it returns the workers' replies, once none has come for ``timeout`` seconds (1 without it).
        ``connection`` is the one to broadcast on, else it has one of its own. ``signal`` changes nothing here.

        Raises:
            BrokerUnavailable: Redis cannot be reached, or refuses this client.
        """
        from tasks.broker.control import REPLIES_WITHIN_S
        from tasks.broker.queues.schedule import hasten
        from tasks.broker.submission.sending import pool_free_control, sending
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
                    timeout=REPLIES_WITHIN_S if timeout is None else timeout,
                )
            except Exception as error:
                if not is_denied(error):
                    raise
                return None

    def then(self, callback: Any, on_error: Any = None, weak: bool = False) -> Any:
        """Do as Celery's ``then``, also for a result that is there already."""
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
        """Return the answer, as :meth:`get` does, without blocking the event loop."""
        return self._answer().__await__()

    async def _answer(self) -> Answer:
        async for _ in GenerateResult.astream(self):
            pass
        # The result is stored right behind the journal's end.
        return await to_thread(self.get)

    @property
    def unknown_after_s(self) -> float:
        """The seconds for which a reader looks for a request that Redis does not know; 0 means for ever."""
        return settings_of(self.app).unknown_after_s

    def is_mentioned(self) -> bool:
        """Return whether a message of this request exists in Redis; ``True`` where that cannot be seen.

        If this process sent the request, and Redis has lost it since, it is sent again first.
        """
        from tasks.broker.inventory.search import is_expected

        return is_expected(self.app, self.id)

    def is_lost(self) -> bool:
        """Return whether Redis has lost this request, which has no result; ``False`` where that cannot be seen."""
        from tasks.broker.inventory.search import is_lost

        return is_lost(self.app, self.id)

    @property
    def status(self) -> CeleryState:
        """Celery's :attr:`state`. Called, as in ``result.status()``, it returns how far the request has come.

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
        """Describe how far the request has come, for the error of a wait that took too long."""
        try:
            return str(self._look())
        except GenerationError as error:
            return str(error)

    def maybe_throw(self, propagate: bool = True, callback: Any = None) -> Any:
        """Do as Celery's. ``get()`` asks by it whether an earlier task has failed; without Redis nobody knows that yet."""
        from tasks.server.trouble import is_away

        try:
            return super().maybe_throw(propagate, callback)
        except Exception as error:
            if self._cache or not is_away(error):
                raise
            return None

    def position(self) -> Position | None:
        """Return how many requests will be taken before this one, and how long that may take; ``None`` once it waits no more.

        Raises:
            BrokerUnavailable: Redis cannot be reached, or refuses this client.
        """
        from tasks.broker.queues.limits import position
        from tasks.server.connection import connect

        with closing(connect(self.app)) as client:
            return position(client, self.id)

    def __reduce__(self) -> Any:
        """Pickle the result for another process or thread, whose current application may be another one."""
        ours = sys.modules.get(f"{PACKAGE}.celery")
        if ours is None or self.app is not ours.app:
            return super().__reduce__()
        return _of_this_project, (type(self), self.id, self.parent)

    def _cancel(self) -> None:
        self.revoke(terminate=True)

    def _stored(self) -> Stored:
        """Read the result that Celery has stored; its state is unknown where Celery stores none or cannot be asked now."""
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
        """Infer the state of a link of a chain that has no result from the tasks before it.

        Celery sends a link once all tasks before it have ended. If one of them was revoked, or is a chord's body that failed,
        Celery never sends the link, and stores nothing for it. Members of a chord's header do not count: their errors are stored
        for its body. A link is not sent either if Redis has lost the task that has to end next.
        """
        from tasks.broker.waiting.before import lost_of, pending_before
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
        """Refuse: this answer comes at once.

        Raises:
            InvalidRequest: always.
        """
        raise InvalidRequest(f"{self.made} do not stream: use get(), or await the result")

    astream = stream


class RerankResult(EmbedResult):
    """The result of ``rerank.delay()``: all scores, or one error."""

    made = "scores"


def _of_this_project(kind: type[GenerateResult], task_id: str, parent: Any) -> GenerateResult:
    """Return a result of this project's application, out of a pickle."""
    return kind(task_id, app=import_module(f"{PACKAGE}.celery").app, parent=parent)

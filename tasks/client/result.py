"""What ``generate.delay()`` returns: an ordinary Celery result that can also be read while it is made."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from celery.result import AsyncResult
from vine import barrier

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from tasks.broker.limits import Position
    from tasks.client.chunks import Chunk
    from tasks.client.stream import Stored


class GenerateResult(AsyncResult):
    """The result of one request; ``get()`` and all else is Celery's.

    It can be made anywhere from the task id alone (``generate.AsyncResult(task_id)``), and any number of readers may read
    it, at any time: before the request starts, in the middle, or after its end.
    """

    def stream(
        self, timeout: float | None = None, idle_timeout: float | None = None, cancel_on_close: bool = False
    ) -> Generator[Chunk, None, None]:
        """The answer's chunks as they come: each index once, in order, to the last one, which has a ``finish_reason``.

        A cancelled request ends with the ``finish_reason`` ``cancelled`` after what was generated. Once the journal has
        expired, what is stored of the result comes as one chunk.

        Args:
            timeout: seconds to wait for the end, from the first chunk asked for.
            idle_timeout: seconds to wait for each chunk. The time that the caller spends on one does not count.
            cancel_on_close: cancel the request when this reader, once begun, leaves before its end for whatever reason.

        Raises:
            StreamTimeout: nothing came in time; the message says what is known. The request itself goes on.
            GenerationError: the request failed; the class says why.
            BrokerUnavailable: Redis cannot be reached, or refuses this client.
        """
        from tasks.client.stream import follow
        from tasks.server.connection import endpoint

        leave = self._cancel if cancel_on_close else None
        return follow(endpoint(self.app), self.id, self._stored, leave, timeout=timeout, idle_timeout=idle_timeout)

    def astream(
        self, timeout: float | None = None, idle_timeout: float | None = None, cancel_on_close: bool = False
    ) -> AsyncGenerator[Chunk, None]:
        """:meth:`stream` for asyncio; it never blocks the event loop."""
        from tasks.client.stream import afollow
        from tasks.server.connection import endpoint

        leave = self._cancel if cancel_on_close else None
        return afollow(endpoint(self.app), self.id, self._stored, leave, timeout=timeout, idle_timeout=idle_timeout)

    def revoke(
        self,
        connection: Any = None,
        terminate: bool = False,
        signal: str | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> Any:
        """Celery's ``revoke``, and a mark in Redis beside it, which workers that start later honour too.

        ``terminate`` frees the request's place in the batch at once; without it a request that has started goes on.

        Raises:
            BrokerUnavailable: Redis cannot be reached, or refuses this client.
        """
        from tasks.journal.writer import mark_cancelled
        from tasks.server.connection import connect

        with closing(connect(self.app)) as client:
            mark_cancelled(client, self.id, running=terminate)
        return super().revoke(connection=connection, terminate=terminate, signal=signal, wait=wait, timeout=timeout)

    def then(self, callback: Any, on_error: Any = None, weak: bool = False) -> Any:
        """Celery's ``then``, for a result that is there already too."""
        found = super().then(callback, on_error, weak)
        if not isinstance(callback, barrier):  # a group looks for its results all at once
            self._get_task_meta()
        return found

    def position(self) -> Position | None:
        """How many requests will be taken before this one, and how long that may take; ``None`` once it waits no more.

        Raises:
            BrokerUnavailable: Redis cannot be reached, or refuses this client.
        """
        from tasks.broker.limits import position
        from tasks.server.connection import connect

        with closing(connect(self.app)) as client:
            return position(client, self.id)

    def _cancel(self) -> None:
        self.revoke(terminate=True)

    def _stored(self) -> Stored:
        """What Celery has stored; an unknown state where it stores nothing or cannot be asked just now."""
        from celery.backends.base import DisabledBackend

        from tasks.client.stream import Stored, describe
        from tasks.errors import BrokerUnavailable
        from tasks.server.connection import translated

        if isinstance(self.backend, DisabledBackend):
            return Stored()
        try:
            with translated(f"result of {self.id}"):
                return describe(self.backend.get_task_meta(self.id, cache=False))
        except BrokerUnavailable:
            return Stored()

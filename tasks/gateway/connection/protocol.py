"""One connection's HTTP: uvicorn's, which ends for clients that stall."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol

if TYPE_CHECKING:
    import asyncio

    # With httptools installed it is another one, with the same attributes.
    from uvicorn.protocols.http.h11_impl import H11Protocol as Base
else:
    Base = AutoHTTPProtocol


class Protocol(Base):
    """Closes a connection that has no whole head of a request in time, or whose client reads nothing of its answer.

    Args:
        stall_s: how long a head may take, and how long sent bytes may lie unread.
        options: uvicorn's.
    """

    def __init__(self, *, stall_s: float, **options: Any) -> None:
        super().__init__(**options)
        self._stall_s = stall_s
        self._head_timer: asyncio.TimerHandle | None = None
        self._read_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there."""
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has left."""
        self._expect_no_head()
        super().connection_lost(exc)  # resumes writing

    def data_received(self, data: bytes) -> None:
        """Take a part of a request."""
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._expect_head()
        else:
            self._expect_no_head()

    def pause_writing(self) -> None:
        """The client reads more slowly than its answer comes."""
        super().pause_writing()
        self._read_timer = self.loop.call_later(self._stall_s, self.transport.abort)

    def resume_writing(self) -> None:
        """It has read most of it."""
        super().resume_writing()
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def _expect_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self._stall_s, self.transport.close)

    def _expect_no_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

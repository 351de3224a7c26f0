"""The way of a stream's events to its client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.gateway.connection import frames

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.types import Send

#: How nginx is told to pass events on at once.
_UNBUFFERED = {"cache-control": "no-cache", "x-accel-buffering": "no"}
_MEDIA = (b"content-type", f"{frames.MEDIA_TYPE}; charset=utf-8".encode())


class Outlet:
    """Sends the headers through the middlewares, which have all had their say then, and the events straight to the server.

    Args:
        through: passes a message through the middlewares.
        straight: passes it to the server.
    """

    __slots__ = ("_straight", "_through", "has_begun")

    def __init__(self, through: Send, straight: Send) -> None:
        self._through, self._straight = through, straight
        #: Whether the client has a status.
        self.has_begun = False

    async def begin(self, headers: Mapping[str, str]) -> None:
        """Send the status 200 and the headers."""
        self.has_begun = True
        encoded = [(name.encode(), value.encode()) for name, value in {**_UNBUFFERED, **headers}.items()]
        await self._through({"type": "http.response.start", "status": 200, "headers": [_MEDIA, *encoded]})

    async def send(self, events: Sequence[bytes], *, more: bool = True) -> None:
        """Send events; ``more`` may follow."""
        body = events[0] if len(events) == 1 else b"".join(events)
        await self._straight({"type": "http.response.body", "body": body, "more_body": more})

"""The other end of one HTTP request: whether it is still there."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from tasks.gateway.connection.bell import Bell
from tasks.gateway.connection.refusal import Refusal

if TYPE_CHECKING:
    from starlette.types import Receive

    from tasks.gateway.connection.closing import Closing


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


class GatewayCloses(Exception):
    """The gateway was told to stop, and the answer goes on without it."""


class Client:
    """Listens for the end of a connection; an asynchronous context manager.

    Args:
        receive: ASGI's; the body was read.
        closing: says that the gateway stops.
    """

    def __init__(self, receive: Receive, closing: Closing) -> None:
        self._receive = receive
        self._closing = closing
        self._is_gone = self._is_locked_out = False
        #: Rung when there is something to look at: news of the answer, or the end of the client or of the gateway.
        self.stirred = Bell()

    async def __aenter__(self) -> Self:
        self._listener = asyncio.create_task(self._listen())
        self._closing.add(self.stirred)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._closing.remove(self.stirred)
        self.stirred.close()
        self._listener.cancel()
        with suppress(asyncio.CancelledError):
            await self._listener

    async def wait(self, patience_s: float) -> bool:
        """Whether there is news within this time.

        Raises:
            ClientGone: the client has closed its connection.
            GatewayCloses: the gateway was told to stop.
            Refusal: the client's API key was revoked.
        """
        self._require_both_ends()
        has_news = await self.stirred.wait(patience_s)
        self._require_both_ends()
        return has_news

    def lock_out(self) -> None:
        """The client's API key was revoked."""
        self._is_locked_out = True
        self.stirred.ring()

    def _require_both_ends(self) -> None:
        if self._is_gone:
            raise ClientGone
        if self._is_locked_out:
            raise Refusal(401, "this API key was revoked while it had this answer open", "invalid_api_key")
        if self._closing.has_begun:
            raise GatewayCloses

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._is_gone = True
        self.stirred.ring()

"""Giving an answer: as one JSON object, or as a stream of events that goes on from wherever the client stands."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

from tasks.errors import Cancelled, GenerationError
from tasks.gateway.connection import frames
from tasks.gateway.connection.client import Client, ClientGone, GatewayCloses
from tasks.gateway.connection.outermost import STREAM
from tasks.gateway.connection.outlet import Outlet
from tasks.gateway.connection.refusal import Refusal, refusal_of
from tasks.gateway.endpoints.pieces import Finish
from tasks.gateway.endpoints.shape import shape_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

    from tasks.broker.queues.limits import Position
    from tasks.gateway.answers.background import Background
    from tasks.gateway.answers.desk import Desk, Ticket
    from tasks.gateway.answers.following import Following
    from tasks.gateway.answers.metrics import Metrics
    from tasks.gateway.connection.closing import Closing
    from tasks.gateway.endpoints.pieces import Piece
    from tasks.gateway.endpoints.shape import Shape

    #: Passes an answer on as it comes.
    Give = Callable[[Client, Following], Awaitable[None]]

#: An error within this time is answered with a status of its own; then the stream begins, without any text yet.
HEAD_S = 0.5
#: The times without parts after which comments come: later and later while a request waits for its turn.
FIRST_COMMENT_S, LONGEST_COMMENT_S = 1.0, 10.0


@dataclass(slots=True, frozen=True)
class Service:
    """The parts that every answer needs. A client without a stream waits for ``wait_s`` at most, and one that has a stream may
    be away for ``grace_s``.
    """

    desk: Desk
    background: Background
    closing: Closing
    metrics: Metrics
    wait_s: float
    grace_s: float

    async def give(
        self, ticket: Ticket, receive: Receive, give: Give, after: Sequence[int] = (), *, grace_s: float = 0.0
    ) -> Following:
        """Have ``give`` pass an answer on to a client. An early end cancels the request, unless the gateway stops.

        A client that leaves may come back within ``grace_s``.
        """
        async with Client(receive, self.closing) as client:
            self.desk.open[ticket] = client.lock_out
            try:
                with self.metrics.open_answer, self.desk.follow(ticket, client.stirred, after) as found:
                    await give(client, found)
            except (GatewayCloses, asyncio.CancelledError):  # the server cancels what has not ended in time
                self.desk.open.pop(ticket, None)
                raise
            except ClientGone:
                if not ticket.record.background:
                    self.background.linger(ticket, grace_s)
                raise
            except BaseException:
                if found.is_running and not ticket.record.background:
                    await self.desk.cancel(ticket)
                if not ticket.record.background:
                    await self.desk.close(ticket, found.choices)
                raise
            await self.desk.close(ticket, found.choices)
            return found


async def answer_whole(service: Service, ticket: Ticket, receive: Receive) -> Response:
    """The answer as one JSON object.

    Raises:
        Refusal: it takes too long, or the gateway stops.
        GenerationError: the request failed.
        ClientGone: nobody waits for it.
    """
    until = time.monotonic() + service.wait_s
    shape = shape_of(ticket.record)

    async def gather(client: Client, following: Following) -> None:
        while not following.is_over:
            if not await client.wait(until - time.monotonic()):
                # The client's own patience is near its end, and it would send the request once more.
                raise Refusal(
                    504,
                    f"no whole answer within {service.wait_s:g} s: use stream=true, or fewer max_tokens",
                    "timeout",
                    should_retry=False,
                )
            parts = refuse_cancelled(following.take())
            service.metrics.count(parts)
            for part in parts:
                shape.note(part)

    try:
        following = await service.give(ticket, receive, gather)
    except GatewayCloses:
        await service.desk.cancel(ticket)
        raise Refusal(503, "this gateway stops: send the request again", "gateway_closing", retry_after_s=1) from None
    return JSONResponse(shape.whole(following.choices), headers={**ticket.headers, "x-request-id": ticket.record.id})


def refuse_cancelled(parts: list[Piece | Finish]) -> list[Piece | Finish]:
    """The same parts. Somebody else than the client has cancelled the request: OpenAI has no such finish reason.

    Raises:
        Cancelled: that is so.
    """
    if any(isinstance(part, Finish) and part.reason == "cancelled" for part in parts):
        raise Cancelled("the request was cancelled")
    return parts


class EventStream:
    """An ASGI response: an answer's events.

    Args:
        service: the parts that every answer needs.
        ticket: the request.
        after: how much of each choice the client has; empty where it has not even the beginning.
    """

    def __init__(self, service: Service, ticket: Ticket, after: Sequence[int] = ()) -> None:
        self._service = service
        self._ticket = ticket
        self._shape: Shape = shape_of(ticket.record, after)
        self._has_sent = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Leave all of it to the outermost application: :class:`tasks.gateway.connection.outermost.Outermost`."""
        scope[STREAM] = partial(self.send_all, scope, receive, send)

    async def send_all(self, scope: Scope, receive: Receive, through: Send, straight: Send) -> None:
        """Send all of it: ``through`` leads through the middlewares, ``straight`` to the server."""
        outlet = Outlet(through, straight)
        try:
            give = partial(self._stream, outlet)
            after, grace_s = self._shape.reads_from, self._service.grace_s
            await self._service.give(self._ticket, receive, give, after, grace_s=grace_s)
            return
        except ClientGone:
            return
        except GatewayCloses:
            why = "this gateway stops: continue with Last-Event-ID"
            refusal = Refusal(503, why, "gateway_closing", retry_after_s=1)
        except Refusal as found:
            refusal = found
        except GenerationError as error:
            refusal = refusal_of(error)
        self._service.metrics.refuse(refusal.status)
        if outlet.has_begun:
            await outlet.send(self._shape.fail(refusal), more=False)
        else:
            headers = {**self._ticket.headers, **refusal.headers, "x-request-id": self._ticket.record.id}
            await JSONResponse(refusal.body, refusal.status, headers)(scope, receive, through)

    async def _stream(self, outlet: Outlet, client: Client, following: Following) -> None:
        patience_s = HEAD_S
        while not following.is_over:
            if await client.wait(patience_s):
                patience_s = FIRST_COMMENT_S if not self._has_sent else LONGEST_COMMENT_S
                await self._send(following, outlet)
                continue
            waits = None if self._has_sent else await self._service.desk.position(self._ticket)
            if not outlet.has_begun:
                await self._begin(outlet, waits)
                patience_s = FIRST_COMMENT_S
            else:
                patience_s = min(LONGEST_COMMENT_S, 2 * patience_s)
            await outlet.send([frames.comment(_about(waits))])
        await outlet.send(self._shape.end(following.choices), more=False)

    async def _send(self, following: Following, outlet: Outlet) -> None:
        parts = refuse_cancelled(following.take())
        if not parts:
            return
        self._service.metrics.count(parts)
        if not outlet.has_begun:
            await self._begin(outlet, None)
        self._has_sent = True
        await outlet.send([self._shape.say(part) for part in parts])

    async def _begin(self, outlet: Outlet, waits: Position | None) -> None:
        headers = {**self._ticket.headers, "x-request-id": self._ticket.record.id}
        if waits is not None:
            headers["x-queue-position"] = str(waits.ahead)
            if waits.wait_s is not None:
                headers["x-queue-eta-s"] = f"{waits.wait_s:g}"
        await outlet.begin(headers)
        await outlet.send(self._shape.begin())


def _about(waits: Position | None) -> str:
    if waits is None:
        return "keep-alive"
    eta = "" if waits.wait_s is None else f" eta_s={waits.wait_s:g}"
    return f"queued position={waits.ahead}{eta}"

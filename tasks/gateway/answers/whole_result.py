"""Answers that do not stream: they wait for the task's result."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from celery.exceptions import TaskRevokedError
from starlette.responses import JSONResponse

from tasks.errors import Cancelled
from tasks.gateway.connection.client import Client, GatewayCloses
from tasks.gateway.connection.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.responses import Response
    from starlette.types import Receive

    from tasks.client.result import GenerateResult
    from tasks.gateway.answers.answering import Service
    from tasks.gateway.answers.desk import Ticket


async def answer_result(service: Service, ticket: Ticket, receive: Receive, fields: Iterable[str]) -> Response:
    """These fields of the task's answer as one JSON object.

    Raises:
        Refusal: it takes too long, or the gateway stops.
        GenerationError: the request failed.
        ClientGone: nobody waits for it.
    """
    (result,) = ticket.results
    waiting = asyncio.ensure_future(_answer(result))
    try:
        async with Client(receive, service.closing) as client:
            service.desk.open[ticket] = client.lock_out
            waiting.add_done_callback(lambda _: client.stirred.ring())
            with service.metrics.open_answer:
                await _wait(client, waiting, service.wait_s)
                answer = waiting.result()
    except BaseException as error:
        if not waiting.done():
            waiting.cancel()
            await service.desk.cancel(ticket)
        await service.desk.charge(ticket, 0, 0)
        if isinstance(error, GatewayCloses):
            closes = "this gateway stops: send the request again"
            raise Refusal(503, closes, "gateway_closing", retry_after_s=1) from None
        raise
    await service.desk.charge(ticket, answer["usage"]["prompt_tokens"], 0)
    headers = {**ticket.headers, "x-request-id": ticket.record.id}
    shown = {"id": ticket.record.id, **answer}
    return JSONResponse({name: shown[name] for name in fields if name in shown}, headers=headers)


async def _wait(client: Client, waiting: asyncio.Future[Any], wait_s: float) -> None:
    until = time.monotonic() + wait_s
    while not waiting.done():
        if not await client.wait(until - time.monotonic()):
            # The client's own patience is near its end, and it would send the request once more.
            why = f"no answer within {wait_s:g} s: send fewer texts in one request"
            raise Refusal(504, why, "timeout", should_retry=False)


async def _answer(result: GenerateResult) -> Any:
    try:
        return await result
    except TaskRevokedError:
        raise Cancelled("the request was cancelled") from None

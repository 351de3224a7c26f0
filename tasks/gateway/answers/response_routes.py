"""The routes of ``/v1/responses`` beside creating one: a look at it, its stream from any event on, and its cancel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from tasks.errors import Cancelled, GenerationError
from tasks.gateway.answers.answering import EventStream, answer_whole
from tasks.gateway.connection.refusal import Refusal, refusal_of
from tasks.gateway.endpoints.response_object import response_object
from tasks.gateway.endpoints.response_shape import error_of

if TYPE_CHECKING:
    from starlette.requests import Request

    from tasks.gateway.access.access import Access
    from tasks.gateway.answers.answering import Service
    from tasks.gateway.answers.desk import Ticket


class ResponseRoutes:
    """The handlers.

    Args:
        service: gives answers.
        access: lets requests in.
    """

    def __init__(self, service: Service, access: Access) -> None:
        self._service = service
        self._access = access

    async def retrieve(self, request: Request) -> Response:
        """A response in its current state, or its stream."""
        ticket = await self._find(request)
        if request.query_params.get("stream") == "true":
            after = _after(request)
            ticket = await self._service.desk.find_stream(ticket.record.id, ticket.key)
            return EventStream(self._service, ticket, after)  # type: ignore[return-value]
        return await self._as_it_stands(ticket, request)

    async def cancel(self, request: Request) -> Response:
        """Cancel a response."""
        ticket = await self._find(request)
        status = await self._service.desk.status(ticket)
        if status.state != "ended":
            await self._service.desk.cancel(ticket)
            return JSONResponse(response_object(ticket.record, "cancelled", []))
        return await self._as_it_stands(ticket, request)

    async def _find(self, request: Request) -> Ticket:
        key = await self._access.key_of(request)
        ticket = await self._service.desk.find(request.path_params["id"], key)
        if ticket.record.kind != "response":
            raise Refusal(404, f"{ticket.record.id:.120} is not a response", "not_found")
        return ticket

    async def _as_it_stands(self, ticket: Ticket, request: Request) -> Response:
        status = await self._service.desk.status(ticket)
        if status.state != "ended":
            found = response_object(ticket.record, "in_progress" if status.state == "running" else "queued", [])
            return JSONResponse(found)
        try:
            return await answer_whole(self._service, ticket, request.receive)
        except Cancelled:
            return JSONResponse(response_object(ticket.record, "cancelled", []))
        except GenerationError as error:
            failed = error_of(refusal_of(error))
            return JSONResponse(response_object(ticket.record, "failed", [], error=failed))


def _after(request: Request) -> list[int]:
    """The number of the last event that a client has; nothing where it has none.

    Raises:
        Refusal: it is no number.
    """
    given: Any = request.query_params.get("starting_after")
    if given is None:
        return []
    if not given.isascii() or not given.isdigit() or len(given) > 12:
        raise Refusal(400, f"starting_after={given:.40}: use the sequence_number of an event", "invalid_request")
    return [int(given)]

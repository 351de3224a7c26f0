"""The application: which handler answers which path."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from tasks.errors import GenerationError
from tasks.fleet.reading import read_state
from tasks.gateway.access.priority import priority_of
from tasks.gateway.answers.answering import EventStream, answer_whole
from tasks.gateway.answers.response_routes import ResponseRoutes
from tasks.gateway.answers.resumption import places_of
from tasks.gateway.answers.whole_result import answer_result
from tasks.gateway.connection.body import read_json
from tasks.gateway.connection.client import ClientGone
from tasks.gateway.connection.refusal import Refusal, refusal_of
from tasks.gateway.endpoints import chat, completions, embeddings, models, reranking, responses
from tasks.gateway.endpoints.description import describe
from tasks.gateway.endpoints.fleet import overview
from tasks.gateway.endpoints.response_object import response_object
from tasks.metrics.exposition import CONTENT_TYPE
from tasks.server.connection import translated
from worker_config.catalogue import catalogue_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

    import redis
    from starlette.requests import Request

    from tasks.gateway.access.access import Access
    from tasks.gateway.answers.answering import Service
    from tasks.gateway.answers.revocation import Revocation
    from tasks.gateway.batches.bulk import Bulk
    from tasks.gateway.endpoints.order import Order
    from worker_config.settings import Settings

    Handler = Callable[[Request], Awaitable[Response]]
    Parse = Callable[[Mapping[str, Any], str], Order]

logger = logging.getLogger(__name__)

#: Blocking calls of Redis at once. Each thread keeps connections and their buffers, half a MiB.
THREADS = 8
#: A third of the time for which an open request counts as such.
RENEW_S = 20.0
PAGE = Path(__file__).with_name("page.html")
#: The page is one file, and asks nobody but its own gateway.
PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Application:
    """The handlers.

    Args:
        service: gives answers.
        access: lets requests in.
        revocation: ends the open answers of revoked keys.
        bulk: has the files and batches.
        client: for looks at the fleet.
        settings: the default model, and the catalogue.
    """

    def __init__(
        self,
        service: Service,
        access: Access,
        revocation: Revocation,
        bulk: Bulk,
        client: redis.Redis,
        settings: Settings,
    ) -> None:
        self._service = service
        self._settings = settings
        self._bulk = bulk
        self._access = access
        self._revocation = revocation
        self._client = client

    def starlette(self, origins: Sequence[str]) -> Starlette:
        """The ASGI application; pages of these other sites may use it."""
        made = Starlette(
            routes=[
                Route(path, self._guarded(path, handler), methods=[method]) for method, path, handler in self._routes
            ],
            middleware=[_for_pages_of(origins)] if origins else [],
            exception_handlers={404: _not_here, 405: _not_here},
            lifespan=self._lifespan,
        )
        made.state.stall_s = self._settings.gateway_stall_s  # for tasks.gateway.connection.body
        return made

    @cached_property
    def _routes(self) -> list[tuple[str, str, Handler]]:
        made = ResponseRoutes(self._service, self._access)
        files, batches = self._bulk.file_routes(self._access), self._bulk.batch_routes(self._access)
        return [
            ("POST", "/v1/chat/completions", self._taking(chat.parse, chat.PREFIX)),
            ("GET", "/v1/chat/completions/{id}", self._retrieve),
            ("POST", "/v1/completions", self._taking(completions.parse, completions.PREFIX)),
            ("POST", "/v1/embeddings", self._embed),
            ("POST", "/v1/rerank", self._rerank),
            ("POST", "/v1/responses", self._taking(responses.parse, responses.PREFIX)),
            ("GET", "/v1/responses/{id}", made.retrieve),
            ("POST", "/v1/responses/{id}/cancel", made.cancel),
            ("POST", "/v1/files", files.create),
            ("GET", "/v1/files", files.list),
            ("GET", "/v1/files/{id}", files.retrieve),
            ("DELETE", "/v1/files/{id}", files.delete),
            ("GET", "/v1/files/{id}/content", files.content),
            ("POST", "/v1/batches", batches.create),
            ("GET", "/v1/batches", batches.list),
            ("GET", "/v1/batches/{id}", batches.retrieve),
            ("POST", "/v1/batches/{id}/cancel", batches.cancel),
            ("GET", "/v1/models", self._models),
            ("GET", "/v1/models/{model:path}", self._model),
            ("GET", "/fleet", self._fleet),
            ("GET", "/health", self._health),
            ("GET", "/metrics", self._metrics),
            ("GET", "/openapi.json", self._description),
            ("GET", "/", self._page),
        ]

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, "celery-mlx-gateway"))
        watching = [
            asyncio.create_task(self._service.desk.keep_open(RENEW_S)),
            asyncio.create_task(self._revocation.watch()),
        ]
        self._bulk.drivers.start()
        yield
        await asyncio.to_thread(self._bulk.drivers.stop)
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)

    def _guarded(self, path: str, handler: Handler) -> Handler:
        """A handler whose errors have OpenAI's shape."""

        async def guarded(request: Request) -> Response:
            try:
                response = await handler(request)
            except ClientGone:
                response = Response(status_code=499)
            except Refusal as refusal:
                response = self._refused(refusal)
            except GenerationError as error:
                response = self._refused(refusal_of(error))
            except OSError as error:  # of the folder of files
                why = f"the gateway's files cannot be used ({error.strerror})"
                response = self._refused(Refusal(503, why, "files_unavailable", should_retry=False))
            except Exception:
                logger.exception("%s %s has met an error of this program", request.method, path)
                response = self._refused(Refusal(500, "an error of the gateway's: its log has it", "internal_error"))
            self._service.metrics.answer(path, getattr(response, "status_code", 200))
            return response

        return guarded

    def _refused(self, refusal: Refusal) -> Response:
        self._service.metrics.refuse(refusal.status)
        return JSONResponse(refusal.body, refusal.status, refusal.headers)

    def _taking(self, parse: Parse, prefix: str) -> Handler:
        """Return a handler that takes requests for an answer, or continues one of which the client names the last event."""

        async def take(request: Request) -> Response:
            """Answer a request, whole or as a stream; the header Last-Event-ID goes on with a stream."""
            key = await self._access.key_of(request)
            body = await read_json(request)
            if request.headers.get("x-stainless-retry-count", "0") != "0":
                self._service.metrics.resend()
            last_event = request.headers.get("last-event-id")
            if last_event:
                return await self._resume(request, *places_of(last_event))
            order = parse(body, self._settings.default_model)
            ticket = await self._service.desk.take(order, key, prefix, priority_of(request, order))
            if order.background:
                self._service.background.attend(ticket)
                if not order.stream:
                    return JSONResponse(response_object(ticket.record, "queued", []))
            if order.stream:
                return EventStream(self._service, ticket)  # type: ignore[return-value]
            return await answer_whole(self._service, ticket, request.receive)

        return take

    async def _embed(self, request: Request) -> Response:
        """Vectors of texts."""
        return await self._answer_result(request, embeddings.parse, embeddings.PREFIX, embeddings.FIELDS)

    async def _rerank(self, request: Request) -> Response:
        """Documents by their relevance to a query."""
        return await self._answer_result(request, reranking.parse, reranking.PREFIX, reranking.FIELDS)

    async def _answer_result(self, request: Request, parse: Parse, prefix: str, fields: Sequence[str]) -> Response:
        key = await self._access.key_of(request)
        order = parse(await read_json(request), self._settings.default_model)
        if request.headers.get("x-stainless-retry-count", "0") != "0":
            self._service.metrics.resend()
        ticket = await self._service.desk.take(order, key, prefix, priority_of(request, order))
        return await answer_result(self._service, ticket, request.receive, fields)

    async def _retrieve(self, request: Request) -> Response:
        """An answer that was begun before: whole, or as a stream."""
        request_id = request.path_params["id"]
        last_event = request.headers.get("last-event-id")
        if last_event:
            named, places = places_of(last_event)
            if named != request_id:
                raise Refusal(400, f"Last-Event-ID: {last_event:.80}: is another answer's", "wrong_event")
            return await self._resume(request, request_id, places)
        if request.query_params.get("stream") == "true":
            return await self._resume(request, request_id, [])
        ticket = await self._service.desk.find(request_id, await self._access.key_of(request))
        return await answer_whole(self._service, ticket, request.receive)

    async def _resume(self, request: Request, request_id: str, places: list[int]) -> Response:
        ticket = await self._service.desk.find_stream(request_id, await self._access.key_of(request))
        if places and len(places) != ticket.record.choices:
            raise Refusal(400, "Last-Event-ID: the answer has another number of choices", "wrong_event")
        return EventStream(self._service, ticket, places)  # type: ignore[return-value]

    async def _models(self, request: Request) -> Response:
        """The models that there are."""
        key = await self._access.key_of(request)
        data = await asyncio.to_thread(models.list_models, self._client, catalogue_of(self._settings), key)
        return JSONResponse({"object": "list", "data": data})

    async def _model(self, request: Request) -> Response:
        """One model."""
        name = request.path_params["model"]
        key = await self._access.key_of(request)
        found = await asyncio.to_thread(models.find_model, self._client, catalogue_of(self._settings), name, key)
        if found is None:
            raise Refusal(
                404, f"there is no model {name!r:.120}: /v1/models lists them", "model_not_found", param="model"
            )
        return JSONResponse(found)

    async def _fleet(self, request: Request) -> Response:
        """Workers and queues."""
        await self._access.key_of(request)
        state = await asyncio.to_thread(read_state, self._client)
        return JSONResponse(overview(state))

    async def _health(self, _: Request) -> Response:
        """Whether requests can be taken: Redis answers."""
        with translated("health"):
            await asyncio.to_thread(self._client.ping)
        if self._service.closing.has_begun:
            raise Refusal(503, "this gateway stops", "gateway_closing", retry_after_s=1)
        return JSONResponse({"status": "ok"})

    async def _metrics(self, _: Request) -> Response:
        """This gateway's metrics."""
        return Response(self._service.metrics.encode(), media_type=CONTENT_TYPE)

    async def _description(self, _: Request) -> Response:
        """This description."""
        routes = [(method, path, (handler.__doc__ or "").partition("\n")[0]) for method, path, handler in self._routes]
        return JSONResponse(describe(routes))

    async def _page(self, _: Request) -> Response:
        """A page to try models."""
        return HTMLResponse(PAGE.read_text(encoding="utf-8"), headers={"content-security-policy": PAGE_POLICY})


def _for_pages_of(origins: Sequence[str]) -> Middleware:
    """Return the middleware that lets these sites' pages read the answers."""
    return Middleware(
        CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"], expose_headers=["*"]
    )


async def _not_here(request: Request, error: Exception) -> Response:
    """Refuse a path that no route answers, in OpenAI's shape."""
    about = f"{request.method} {request.scope['path']:.120}"
    headers = getattr(error, "headers", None) or {}
    if getattr(error, "status_code", 404) == 405:
        refusal = Refusal(405, f"{about}: use {headers['Allow']}", "method_not_allowed", headers=headers)
    else:
        refusal = Refusal(404, f"{about}: there is nothing here; docs/openai.md lists what there is", "not_found")
    return JSONResponse(refusal.body, refusal.status, refusal.headers)

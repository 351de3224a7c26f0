"""``/v1/batches``."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from tasks.bulk.line import PATHS
from tasks.errors import InvalidRequest
from tasks.gateway.batches.batch import Batch
from tasks.gateway.batches.file_routes import LEAST_TTL_S, MOST_TTL_S
from tasks.gateway.batches.files import BATCH
from tasks.gateway.batches.listing import page_of
from tasks.gateway.connection.body import read_json
from tasks.gateway.connection.refusal import Refusal
from tasks.gateway.endpoints.order import number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

    from tasks.gateway.access.access import Access
    from tasks.gateway.batches.drive import BatchContext
    from tasks.gateway.batches.drivers import Drivers
    from tasks.gateway.records.access_key import AccessKey

FIELDS = frozenset({"completion_window", "endpoint", "input_file_id", "metadata", "output_expires_after"})
_WINDOW = re.compile(r"([1-9][0-9]{0,4})([mhd])")
_UNITS_S = {"m": 60, "h": 3_600, "d": 86_400}
MOST_WINDOW_S = 30 * 86_400
#: OpenAI's bounds of ``metadata``.
MOST_PAIRS, MAX_KEY_CHARACTERS, MAX_VALUE_CHARACTERS = 16, 64, 512
_LISTED, _MOST_LISTED = 20, 100


class BatchRoutes:
    """The handlers.

    Args:
        context: has the batches.
        drivers: go on with them.
        access: lets requests in.
        ttl_s: how long the files of a batch are kept whose owner does not say.
    """

    def __init__(self, context: BatchContext, drivers: Drivers, access: Access, ttl_s: int) -> None:
        self._context = context
        self._drivers = drivers
        self._access = access
        self._ttl_s = ttl_s

    async def create(self, request: Request) -> Response:
        """Begin a batch."""
        key = await self._access.key_of(request)
        batch = self._batch(await read_json(request), key)
        await asyncio.to_thread(self._begin, batch)
        self._drivers.stir()
        return JSONResponse(batch.shown(None))

    async def list(self, request: Request) -> Response:
        """The key's batches, the newest first."""
        key = await self._access.key_of(request)
        shown = await asyncio.to_thread(self._owned, key.id)
        return JSONResponse(page_of(shown, request.query_params, _LISTED, _MOST_LISTED))

    async def retrieve(self, request: Request) -> Response:
        """A batch, with its progress."""
        return JSONResponse(await asyncio.to_thread(self._show, await self._find(request)))

    async def cancel(self, request: Request) -> Response:
        """End a batch; the lines that are answered already stay."""
        batch = await self._find(request)
        if batch.is_over:
            why = f"{batch.id} is {batch.status}: only a batch that is not over can be cancelled"
            raise Refusal(409, why, "batch_is_over", should_retry=False)
        await asyncio.to_thread(self._context.batches.cancel, batch)
        self._drivers.stir()
        return JSONResponse(await asyncio.to_thread(self._show, batch))

    async def _find(self, request: Request) -> Batch:
        key = await self._access.key_of(request)
        return await asyncio.to_thread(self._context.batches.find, request.path_params["id"], key.id)

    def _show(self, batch: Batch) -> dict[str, Any]:
        return batch.shown(self._context.batches.cancelling_at(batch))

    def _owned(self, owner: str) -> list[dict[str, Any]]:  # type: ignore[valid-type]
        return [self._show(batch) for batch in self._context.batches.owned(owner)]

    def _begin(self, batch: Batch) -> None:
        file = self._context.files.find(batch.input_file_id, batch.owner)
        if file.purpose != BATCH:
            raise Refusal(400, f"input_file_id: {file.id} has the purpose {file.purpose}: use {BATCH}", "wrong_purpose")
        self._context.batches.write(batch)

    def _batch(self, body: Mapping[str, Any], key: AccessKey) -> Batch:
        unknown = sorted(set(body) - FIELDS)
        if unknown:
            raise InvalidRequest(f"{unknown[0]:.60}: unknown; there are {', '.join(sorted(FIELDS))}")
        endpoint, file_id, window = body.get("endpoint"), body.get("input_file_id"), body.get("completion_window")
        if not isinstance(endpoint, str) or endpoint not in PATHS:
            raise InvalidRequest(f"endpoint={endpoint!r:.60}: use {' or '.join(PATHS)}")
        if not isinstance(file_id, str):
            raise InvalidRequest(f"input_file_id={file_id!r:.60}: use the id of a file with the purpose {BATCH}")
        now = int(time.time())
        return Batch(
            id=f"batch_{uuid.uuid4().hex}",
            owner=key.id,
            models=[*key.models],
            endpoint=endpoint,
            input_file_id=file_id,
            completion_window=str(window),
            created_at=now,
            expires_at=now + _window_s(window),
            output_ttl_s=_output_ttl_s(body) or self._ttl_s,
            metadata=_metadata(body),
        )


def _window_s(window: Any) -> int:
    found = _WINDOW.fullmatch(window) if isinstance(window, str) else None
    seconds = int(found[1]) * _UNITS_S[found[2]] if found is not None else 0
    if not 0 < seconds <= MOST_WINDOW_S:
        raise InvalidRequest(f'completion_window={window!r:.40}: use "24h", or another time up to 30d, as "30m"')
    return seconds


def _output_ttl_s(body: Mapping[str, Any]) -> int:
    given = body.get("output_expires_after")
    if given is None:
        return 0
    if not isinstance(given, dict) or given.get("anchor") != "created_at":
        raise InvalidRequest(f'output_expires_after={given!r:.60}: use {{"anchor": "created_at", "seconds": …}}')
    return number(given, "seconds", 0, LEAST_TTL_S, MOST_TTL_S)


def _metadata(body: Mapping[str, Any]) -> dict[str, str] | None:
    given = body.get("metadata")
    if given is None:
        return None
    if (
        not isinstance(given, dict)
        or len(given) > MOST_PAIRS
        or not all(
            isinstance(value, str) and len(value) <= MAX_VALUE_CHARACTERS and len(name) <= MAX_KEY_CHARACTERS
            for name, value in given.items()
        )
    ):
        raise InvalidRequest(
            f"metadata: use up to {MOST_PAIRS} texts of up to {MAX_VALUE_CHARACTERS} characters, "
            f"with names of up to {MAX_KEY_CHARACTERS}"
        )
    return given

"""``/v1/files``."""

from __future__ import annotations

import asyncio
import shutil
from typing import TYPE_CHECKING, Any

from starlette.responses import FileResponse, JSONResponse, Response

from tasks.gateway.batches.files import BATCH
from tasks.gateway.batches.listing import page_of
from tasks.gateway.batches.upload import file_of, read_form
from tasks.gateway.connection.refusal import Refusal
from worker_config.units import MIB

if TYPE_CHECKING:
    from starlette.datastructures import FormData
    from starlette.requests import Request

    from tasks.gateway.access.access import Access
    from tasks.gateway.batches.drive import BatchContext
    from tasks.gateway.batches.files import StoredFile

MAX_NAME_CHARACTERS = 255
#: OpenAI's bounds of ``expires_after``.
LEAST_TTL_S, MOST_TTL_S = 3_600, 2_592_000
_MOST_LISTED = 10_000


class FileRoutes:
    """The handlers.

    Args:
        context: has the files.
        access: lets requests in.
        most_mib: the size of a file.
        ttl_s: how long a file is kept whose owner does not say.
    """

    def __init__(self, context: BatchContext, access: Access, most_mib: int, ttl_s: int) -> None:
        self._context = context
        self._access = access
        self._most_mib = most_mib
        self._ttl_s = ttl_s

    async def create(self, request: Request) -> Response:
        """Keep a file."""
        key = await self._access.key_of(request)
        async with read_form(request, self._most_mib * MIB) as form:
            file, purpose, ttl_s = file_of(form), form.get("purpose"), _ttl_of(form) or self._ttl_s
            if purpose != BATCH:
                raise Refusal(400, f'purpose={purpose!r:.60}: use "{BATCH}"', "invalid_request", param="purpose")
            if (file.size or 0) > self._most_mib * MIB:
                raise Refusal(413, f"the file has more than {self._most_mib} MiB: send less", "request_too_large")
            stored = await asyncio.to_thread(self._store, file.file, _name(file.filename), key.id, ttl_s)
        return JSONResponse(stored.shown())

    async def list(self, request: Request) -> Response:
        """The key's files, the newest first."""
        key = await self._access.key_of(request)
        files = await asyncio.to_thread(self._context.files.owned, key.id)
        purpose = request.query_params.get("purpose")
        shown = [file.shown() for file in files if purpose in (None, file.purpose)]
        order = request.query_params.get("order", "desc")
        if order not in ("asc", "desc"):
            raise Refusal(400, f"order={order!r:.40}: use asc or desc", "invalid_request", param="order")
        if order == "desc":
            shown.reverse()
        return JSONResponse(page_of(shown, request.query_params, _MOST_LISTED, _MOST_LISTED))

    async def retrieve(self, request: Request) -> Response:
        """Answer with the record of a file."""
        return JSONResponse((await self._find(request)).shown())

    async def content(self, request: Request) -> Response:
        """A file's bytes."""
        file = await self._find(request)
        return FileResponse(self._context.files.content(file.id), media_type="application/octet-stream")

    async def delete(self, request: Request) -> Response:
        """Delete a file."""
        file = await self._find(request)
        user = await asyncio.to_thread(self._context.batches.user_of, file.id)
        if user is not None:
            raise Refusal(400, f"{file.id} is read by {user.id}: cancel that first, or wait for its end", "file_in_use")
        await asyncio.to_thread(self._context.files.delete, file.id)
        return JSONResponse({"id": file.id, "object": "file", "deleted": True})

    async def _find(self, request: Request) -> StoredFile:
        key = await self._access.key_of(request)
        return await asyncio.to_thread(self._context.files.find, request.path_params["id"], key.id)

    def _store(self, file: Any, name: str, owner: str, ttl_s: int) -> StoredFile:
        part = self._context.files.part()
        try:
            with part.open("wb") as target:
                shutil.copyfileobj(file, target, MIB)
            return self._context.files.add(part, owner=owner, filename=name, purpose=BATCH, ttl_s=ttl_s)
        except OSError:
            part.unlink(missing_ok=True)
            raise


def _ttl_of(form: FormData) -> int:
    """``expires_after``; 0 where the form has none.

    Raises:
        Refusal: it is out of OpenAI's bounds.
    """
    seconds = form.get("expires_after[seconds]")
    if seconds is None:
        return 0
    anchor = form.get("expires_after[anchor]")
    if anchor != "created_at" or not isinstance(seconds, str) or not seconds.isascii() or not seconds.isdigit():
        raise _wrong_expiry(anchor, seconds)
    if len(seconds) > len(str(MOST_TTL_S)) or not LEAST_TTL_S <= int(seconds) <= MOST_TTL_S:
        raise _wrong_expiry(anchor, seconds)
    return int(seconds)


def _wrong_expiry(anchor: Any, seconds: Any) -> Refusal:
    return Refusal(
        400,
        f"expires_after: anchor={anchor!r:.40}, seconds={seconds!r:.40}: use created_at and {LEAST_TTL_S} to {MOST_TTL_S}",
        "invalid_request",
        param="expires_after",
    )


def _name(given: str | None) -> str:
    """Return the name of a file for people; it is no path here."""
    return "".join(letter for letter in given or "file" if letter.isprintable())[:MAX_NAME_CHARACTERS]

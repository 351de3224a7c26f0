"""A file in the body of a request: ``multipart/form-data``, within a bound."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from tasks.gateway.connection.body import bounded
from tasks.gateway.connection.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from starlette.datastructures import FormData
    from starlette.requests import Request

#: The fields of a form beside its file.
_FORM_BYTES = 2**16
_MAX_FIELDS = 16


@asynccontextmanager
async def read_form(request: Request, most_bytes: int) -> AsyncIterator[FormData]:
    """The form in a request; its file is gone afterwards.

    Raises:
        Refusal: it is too large, stalls, or is no form.
        ClientGone: it will not be whole any more.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
        raise Refusal(400, "the body is not multipart/form-data: send a form with file and purpose", "invalid_form")
    stream = bounded(request, most_bytes + _FORM_BYTES)
    parser = MultiPartParser(request.headers, stream, max_files=1, max_fields=_MAX_FIELDS)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Refusal(400, f"the body is not a form ({error.message:.120})", "invalid_form") from None
    try:
        yield form
    finally:
        await form.close()


def file_of(form: FormData) -> UploadFile:
    """The file.

    Raises:
        Refusal: there is none.
    """
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise Refusal(400, "file: send one as a part of the form, with a filename", "invalid_request", param="file")
    return file

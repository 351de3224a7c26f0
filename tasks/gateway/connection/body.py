"""The body of a request: JSON, within a bound."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, NoReturn

from starlette.requests import ClientDisconnect

from tasks.broker.message.message import MAX_BODY_BYTES
from tasks.gateway.connection.client import ClientGone
from tasks.gateway.connection.refusal import Refusal
from tasks.messages.encoding import to_compact_json
from worker_config.units import MIB

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from starlette.requests import Request


async def read_json(request: Request) -> dict[str, Any]:
    """The object in a request's body.

    Raises:
        Refusal: it is compressed or too large, stalls, or is not a JSON object.
        ClientGone: it will not be whole any more.
    """
    coding = request.headers.get("content-encoding", "")
    if coding.lower() not in ("", "identity"):
        why = f"content-encoding: {coding:.40}: send the body as it is, without compression"
        raise Refusal(415, why, "unsupported_encoding")
    body = await read_body(request, MAX_BODY_BYTES)
    try:
        found = json.loads(body, parse_constant=_refuse_constant)
        if b"\\u" in body:
            to_compact_json(found).encode()  # half of a character cannot be sent on
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"the body is not JSON ({type(error).__name__}): send an object", "invalid_json") from None
    if not isinstance(found, dict):
        raise Refusal(400, "the body is not a JSON object: send one with model and messages", "invalid_json")
    return found


async def read_body(request: Request, most_bytes: int) -> bytes:
    """A request's body.

    Raises:
        Refusal: it is too large, or stalls.
        ClientGone: it will not be whole any more.
    """
    return b"".join([part async for part in bounded(request, most_bytes)])


async def bounded(request: Request, most_bytes: int) -> AsyncGenerator[bytes]:
    """A request's body, part by part.

    Raises:
        Refusal: it is too large, or stalls.
        ClientGone: it will not be whole any more.
    """
    size, stall_s, parts = 0, request.app.state.stall_s, request.stream()
    while True:
        try:
            async with asyncio.timeout(stall_s):
                part = await anext(parts, None)
        except TimeoutError:
            raise Refusal(
                408, f"no more of the body came for {stall_s:g} s: send it again", "request_timeout"
            ) from None
        except ClientDisconnect:
            raise ClientGone from None
        if part is None:
            return
        size += len(part)
        if size > most_bytes:
            raise Refusal(413, f"the body has more than {most_bytes // MIB} MiB: send less", "request_too_large")
        yield part


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)

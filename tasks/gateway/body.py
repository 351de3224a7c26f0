"""The body of a request: JSON, within a bound."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

from tasks.gateway.refusal import Refusal

if TYPE_CHECKING:
    from starlette.requests import Request

MIB = 2**20
#: A prompt of 4 MiB, the largest, takes up to three times as much as JSON.
MAX_BODY_BYTES = 16 * MIB


async def read_json(request: Request) -> dict[str, Any]:
    """The object in a request's body.

    Raises:
        Refusal: it is too large, or is no JSON object.
    """
    body = await read_body(request, MAX_BODY_BYTES)
    try:
        found = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"the body is no JSON ({type(error).__name__}): send an object", "invalid_json") from None
    if not isinstance(found, dict):
        raise Refusal(400, "the body is no JSON object: send one with model and messages", "invalid_json")
    return found


async def read_body(request: Request, most_bytes: int) -> bytes:
    """A request's body.

    Raises:
        Refusal: it is too large.
    """
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most_bytes:
            raise Refusal(413, f"the body has more than {most_bytes // MIB} MiB: send less", "request_too_large")
        parts.append(part)
    return b"".join(parts)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)

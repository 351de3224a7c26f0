"""Reads the priority of an HTTP request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.client.request.options import LEAST_URGENT, MOST_URGENT
from tasks.errors import InvalidRequest

if TYPE_CHECKING:
    from starlette.requests import Request

    from tasks.gateway.endpoints.order import Order

HEADER = "x-priority"
#: OpenAI's ``service_tier``; the others, like none, leave it to the key.
_TIERS = {"priority": MOST_URGENT, "flex": LEAST_URGENT}


def priority_of(request: Request, order: Order) -> int | None:
    """The priority that a header, or else the body, asks for; ``None`` if neither does.

    Raises:
        InvalidRequest: the header is no priority.
    """
    asked = request.headers.get(HEADER)
    if asked is None:
        return _TIERS.get(order.service_tier)
    if not asked.isascii() or not asked.isdigit() or not MOST_URGENT <= int(asked) <= LEAST_URGENT:
        raise InvalidRequest(f"{HEADER}: {asked:.20}: use {MOST_URGENT} (the most urgent) to {LEAST_URGENT}")
    return int(asked)

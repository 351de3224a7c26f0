"""One page of a list, in OpenAI's shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.gateway.connection.refusal import Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def page_of(shown: Sequence[dict[str, Any]], query: Mapping[str, str], default: int, most: int) -> dict[str, Any]:
    """The page that ``after`` and ``limit`` ask for; an id that is not there has nothing behind it.

    Raises:
        Refusal: ``limit`` is out of bounds.
    """
    limit, after = query.get("limit", str(default)), query.get("after")
    if not limit.isascii() or not limit.isdigit() or len(limit) > len(str(most)) or not 1 <= int(limit) <= most:
        raise Refusal(400, f"limit={limit!r:.40}: use 1 to {most}", "invalid_request", param="limit")
    ids = [entry["id"] for entry in shown]
    begin = 0 if after is None else ids.index(after) + 1 if after in ids else len(ids)
    page = shown[begin : begin + int(limit)]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": begin + len(page) < len(shown),
    }

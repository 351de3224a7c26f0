"""Whether a worker has a request, by its journal alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.messages.journal import End, Error, Release, decode
from tasks.server import keys

if TYPE_CHECKING:
    import redis


def has_begun(client: redis.Redis, task_id: str) -> bool:
    """Whether a worker has claimed this request and has not given it back; ``True`` also once it has ended."""
    return _newest_is_no(client, task_id, Release)


def goes_on(client: redis.Redis, task_id: str) -> bool:
    """Whether this request has a journal, and no end in it."""
    return _newest_is_no(client, task_id, End, Error)


def _newest_is_no(client: redis.Redis, task_id: str, *kinds: type) -> bool:
    """Whether there is a journal, whose last entry is of another kind; this code need not know of which."""
    entries: Any = client.xrevrange(keys.stream(task_id), count=1)
    if not entries:
        return False
    fields = entries[0][1]
    return not isinstance(decode(fields.get(b"d") or fields.get("d") or b""), kinds)

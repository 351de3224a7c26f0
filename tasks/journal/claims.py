"""Whether a worker has a request, by its journal alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.messages.journal import Release, decode
from tasks.server import keys

if TYPE_CHECKING:
    import redis


def has_begun(client: redis.Redis, task_id: str) -> bool:
    """Whether a worker has claimed this request and has not given it back; ``True`` also once it has ended."""
    entries: Any = client.xrevrange(keys.stream(task_id), count=1)
    if not entries:
        return False
    fields = entries[0][1]
    return not isinstance(decode(fields.get(b"d") or fields.get("d") or b""), Release)

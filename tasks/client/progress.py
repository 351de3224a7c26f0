"""How far a request has come, in one look at its journal."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from tasks.errors import GenerationError
from tasks.messages.journal import Claim, End, Error, Release, Token, decode
from tasks.server import keys
from tasks.server.connection import connect, translated

if TYPE_CHECKING:
    from tasks.server.connection import Endpoint

#: What is said of a request that is waited for in vain must not take long.
LOOK_S = 1.0


def progress(where: Endpoint, task_id: str) -> str:
    """What a caller that has waited for too long is told."""
    try:
        with closing(connect(where, timeout_s=LOOK_S, attempts=1)) as client, translated(f"request {task_id}"):
            newest = _newest(client.xrevrange(keys.stream(task_id), count=1))
            if newest is None:
                return "no worker has claimed it"
            # A claim is the first entry of its attempt.
            first = f"{newest.attempt}-0"
            claim = _newest(client.xrange(keys.stream(task_id), first, first))
    except GenerationError as error:
        return str(error)
    if isinstance(newest, End | Error):
        return "it has ended, and its result is not stored yet"
    if isinstance(newest, Release):
        return f"its worker gave it back after attempt {newest.attempt}, and no other has claimed it yet"
    worker = claim.worker if isinstance(claim, Claim) else "?"
    if isinstance(newest, Token):
        return f"worker {worker} has sent {newest.index + len(newest.ids)} tokens"
    return f"worker {worker} has claimed it (attempt {newest.attempt}), no token yet"


def _newest(entries: Any) -> Any:
    return decode(entries[0][1].get(b"d", b"")) if entries else None

"""Purging: a queue is emptied for good, and readers of the purged requests see that they were cancelled.

One script takes the messages out of the queue's lists (lanes and aside lists, too) and its schedule, and marks their entries
in the ledger. So the sweep does not send them again. Then every request gets its end: the result ``REVOKED``, and ``cancelled``
in its journal. The sweep finishes this where the process that purges is killed, or may not write results and journals.
"""

from __future__ import annotations

import json
import logging
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

from celery import states
from celery.app.task import Context
from celery.exceptions import TaskRevokedError

from tasks.broker import scripts
from tasks.broker.inventory.contents import body_of
from tasks.broker.queues.queues import SEPARATOR, lists_of
from tasks.broker.queues.references import with_references
from tasks.errors import GenerationError
from tasks.journal.writer import Journal
from tasks.messages.journal import End, Release
from tasks.names import OURS
from tasks.registry.values import json_object
from tasks.server import keys
from tasks.server.connection import connect, translated
from tasks.server.script import Script

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis
    from celery import Celery
    from celery.backends.base import Backend

logger = logging.getLogger(__name__)

PURGE = Script(with_references("purge"))
FORGET = Script(scripts.source("forget"))
#: The bounds of one call of the script.
PAGE = 100
PAGE_BYTES = 1024 * 1024
REASON = "purged"


def purge_queue(client: redis.Redis, queue: str, app: Celery | None) -> int:
    """Empty a queue for good.

    Args:
        client: the connection to the queue.
        queue: its name.
        app: stores the requests' results; ``None`` leaves their ends to the sweep.

    Returns:
        The number of messages.

    Raises:
        BrokerUnavailable: Redis cannot be reached or refuses.
    """
    found, left = 0, 0
    with ExitStack() as stack:
        ends: _Ends | None = None
        for count, requests in take_out(client, queue):
            found += count
            for message in requests:
                try:
                    if ends is None and app is not None:
                        ends = _Ends(stack.enter_context(closing(connect(app))), app.backend)
                    if ends is None or left:
                        left += 1
                    else:
                        ends.end(message)
                except GenerationError as error:
                    logger.debug("%s", error)
                    left += 1
    if left:
        logger.warning("%d requests were purged out of %s; the sweep will end their journals", left, queue)
    return found


def take_out(client: redis.Redis, queue: str) -> Iterator[tuple[int, list[str]]]:
    """Take all messages out of a queue, page by page: their number, and the requests among them.

    Raises:
        BrokerUnavailable: Redis cannot be reached or refuses.
    """
    names = [keys.LEDGER, keys.ASIDE, keys.scheduled(queue), *lists_of(queue)]
    while True:
        with translated(f"purging {queue}"):
            count, requests = PURGE(client, names, (queue + SEPARATOR, PAGE, PAGE_BYTES, *OURS))
        if not count:
            return
        yield count, [message.decode(errors="replace") for message in requests]


def end_purged(journal: Journal, revoke: Callable[[str, str], None], task_id: str, message: str) -> None:
    """End a purged request. One that a worker runs goes on: its message was queued a second time.

    Args:
        journal: the requests' journals.
        revoke: stores the result; see :func:`revoke`.
        task_id: the request.
        message: its message.

    Raises:
        BrokerUnavailable: Redis cannot be reached or refuses.
    """
    entries = journal.read(task_id)
    if entries and not isinstance(entries[-1], Release):
        return
    # The result first: the journal's end deletes the ledger's entry, without which nobody would come back to this request.
    with translated(f"result of {task_id}"):
        revoke(task_id, message)
    journal.end_unclaimed(task_id, End(attempt=0, index=0, finish_reason="cancelled", usage={}))


def revoke(backend: Backend, task_id: str, message: str) -> None:
    """Store that a request was revoked, for its chord and for the next links of its chain, too."""
    error = TaskRevokedError(REASON)
    backend.mark_as_failure(task_id, error, request=_context(message), call_errbacks=False, state=states.REVOKED)


class _Ends:
    """Ends requests from the process that purges."""

    def __init__(self, client: redis.Redis, backend: Backend) -> None:
        self._client = client
        self._backend = backend
        self._journal = Journal(client)

    def end(self, message: str) -> None:
        task_id = str(json.loads(message)["headers"]["id"])
        end_purged(self._journal, lambda *of: revoke(self._backend, *of), task_id, message)
        with translated(f"forgetting {task_id}"):
            FORGET(self._client, (keys.LEDGER,), (task_id,))


def _context(message: str) -> Context:
    """Return the part of a request that Celery's backend needs: its chord, and the rest of its chain."""
    values = json_object(message)
    headers, properties = values.get("headers") or {}, values.get("properties") or {}
    _, _, followers = body_of(values)
    return Context({**headers, **followers, "properties": properties})

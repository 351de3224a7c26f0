"""Looks for an id in every message: the last look before an id is called unknown.

A request that was queued without an entry in the ledger is nowhere else; nor is the next link of a chain, a callback or a chord's
body, which is sent by a worker and until then is a part of another message.
"""

from __future__ import annotations

import binascii
import re
import time
from base64 import b64decode
from contextlib import closing
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoPermissionError, ResponseError

from tasks.broker.queues.queues import lists_of
from tasks.broker.submission.sent import SENT
from tasks.errors import BrokerUnavailable
from tasks.journal.claims import goes_on
from tasks.registry.values import text
from tasks.server import keys
from tasks.server.connection import connect, translated
from worker_config.celeryconfig import DEFAULT_QUEUE
from worker_config.tiers import QUEUES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import redis
    from celery import Celery

PAGE = 200
#: More messages than this are not read for one id, which may be somewhere among them.
MOST_MESSAGES = 20_000
#: The key under which kombu keeps the messages that workers of other tasks hold.
KOMBU_UNACKED = "unacked"

_BODY = re.compile(rb'"body": ?"([A-Za-z0-9+/=]*)"')


def is_expected(app: Celery, task_id: str) -> bool:
    """Whether any message leads to this request, though nothing else does; ``True`` where that cannot be seen.

    A request that this process has sent, and that Redis has lost since, is sent again first.
    """
    looked_at = time.monotonic()
    try:
        with closing(connect(app)) as client:
            queues = {*QUEUES, DEFAULT_QUEUE, *app.amqp.queues}
            return is_mentioned(client, task_id, queues) or SENT.send_again(client, task_id, looked_at)
    except BrokerUnavailable:
        return True


def is_lost(app: Celery, task_id: str) -> bool:
    """Whether Redis knows nothing of a request without a result: no entry, no journal that goes on, no message that leads to it.

    ``False`` where that cannot be seen.
    """
    try:
        with closing(connect(app)) as client, translated(f"request {task_id}"):
            if client.hexists(keys.LEDGER, task_id) or goes_on(client, task_id):
                return False
    except BrokerUnavailable:
        return False
    return not is_expected(app, task_id)


def is_mentioned(client: redis.Redis, task_id: str, queues: Iterable[str]) -> bool:
    """Whether a message has this id, or will lead to one that has; ``True`` where there is too much to look through.

    Args:
        client: answers in bytes.
        queues: all that messages go to.

    Raises:
        BrokerUnavailable: Redis cannot be reached, or this client may not read the queues.
    """
    wanted = task_id.encode()
    read = 0
    with translated(f"looking for {task_id}"):
        for message in _messages(client, list(queues)):
            read += 1
            if read > MOST_MESSAGES or _has(message, wanted):
                return True
    return False


def _messages(client: redis.Redis, queues: list[str]) -> Iterator[bytes]:
    """All messages, in the order in which they move, so that none moves past. Those of requests are in the ledger, or held."""
    for _, entry in client.hscan_iter(keys.LEDGER, count=PAGE):
        yield entry
    for queue in queues:
        yield from _members(client, keys.scheduled(queue))
    aside: Any = client.zrange(keys.ASIDE, 0, -1)
    for name in (*(name for queue in queues for name in lists_of(queue)), *map(text, aside)):
        yield from _list(client, name)
    try:
        owners: Any = client.smembers(keys.OWNERS)
        for key in (*(keys.unacked(text(identity)) for identity in owners), KOMBU_UNACKED):
            held: Any = client.hvals(key)
            yield from held
    except NoPermissionError:
        return  # a producer, which may not see what others have sent


def _list(client: redis.Redis, name: str) -> Iterator[bytes]:
    start = 0
    while page := _page(client, name, start):
        yield from page
        start += PAGE


def _page(client: redis.Redis, name: str, start: int) -> list[bytes]:
    try:
        page: Any = client.lrange(name, start, start + PAGE - 1)
    except NoPermissionError:
        raise
    except ResponseError:  # a key of another type is no list of messages
        return []
    return list(page)


def _members(client: redis.Redis, name: str) -> Iterator[bytes]:
    start = 0
    while page := client.zrange(name, start, start + PAGE - 1):
        yield from page  # type: ignore[misc]
        start += PAGE


def _has(message: bytes, wanted: bytes) -> bool:
    if wanted in message:
        return True
    # What a worker holds is JSON in JSON.
    body = _BODY.search(message.replace(b'\\"', b'"'))
    try:
        return body is not None and wanted in b64decode(body[1])
    except binascii.Error:
        return False

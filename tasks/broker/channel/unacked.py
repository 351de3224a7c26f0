"""The messages that a worker has fetched and not acknowledged, and their way back to the queues when it is dead."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from os import urandom
from typing import TYPE_CHECKING, Any

from tasks.broker.queues.queues import SEPARATOR, list_of
from tasks.broker.queues.references import with_references
from tasks.names import is_ours
from tasks.registry.values import text
from tasks.server import keys
from tasks.server.connection import translated

if TYPE_CHECKING:
    import redis

logger = logging.getLogger(__name__)

#: Messages in one call: a prompt can be a megabyte, and Redis does nothing else meanwhile.
PAGE = 20
BINDINGS = "_kombu.binding.{}"


@dataclass(slots=True, frozen=True)
class Held:
    """One unacknowledged message, ready to be queued again: its list in Redis, its text, and its task's id and name."""

    tag: str
    list_name: str
    message: str
    task_id: str
    task: str


def held(client: redis.Redis, identity: str) -> list[Held]:
    """Return the messages that a worker holds, oldest first. One that kombu could not read either has an empty ``list_name``.

    Raises:
        BrokerUnavailable: Redis cannot be reached or refuses for now.
    """
    with translated(f"reading what {identity} holds"):
        stored: Any = client.hgetall(keys.unacked(identity))
        fetched: Any = client.zrange(keys.unacked_index(identity), 0, -1, withscores=True) if stored else []
        at = {text(tag): score for tag, score in fetched}
        messages = [read_held(client, text(tag), payload) for tag, payload in stored.items()]
    return sorted(messages, key=lambda message: at.get(message.tag, 0.0))


def restore(client: redis.Redis, identity: str) -> list[str]:
    """Give back all that a dead worker holds to the front of its queues, in order; the ids of the tasks.

    However many call this at once, each message is restored exactly once. A message that nobody can read is dropped and logged.

    Raises:
        BrokerUnavailable: Redis cannot be reached or refuses for now.
    """
    script = client.register_script(with_references("restore"))
    restored: list[str] = []
    # The front is the right end, so the oldest message is pushed last.
    waiting = held(client, identity)[::-1]
    for start in range(0, len(waiting), PAGE):
        page = waiting[start : start + PAGE]
        for message in page:
            if not message.list_name:
                logger.error("%s held an unreadable message, dropped: %.200r", identity, message.message)
        with translated(f"restoring what {identity} held"):
            done = script(
                [keys.unacked(identity), keys.unacked_index(identity), keys.LEDGER],
                [field for message in page for field in _fields(message)],
            )
        restored += [message.task_id for message, mine in zip(page, done, strict=True) if mine and message.list_name]
    return restored[::-1]


def _fields(message: Held) -> tuple[str, str, str, str]:
    """Return the arguments of restore.lua for a message; an id only of a request, which the ledger misses."""
    return message.tag, message.list_name, message.message, message.task_id if is_ours(message.task) else ""


def read_held(client: redis.Redis, tag: str, payload: bytes | str) -> Held:
    """Read the note of a message: kombu's ``[message, exchange, routing key]``, as kombu itself would put it back."""
    try:
        message, exchange, routing_key = json.loads(payload)
        headers, properties = message["headers"], message["properties"]
        headers["redelivered"] = True
        properties["delivery_info"]["redelivered"] = True
        # A worker that was taken for dead may fetch it again: the end of its earlier delivery must not take the note of the later
        properties["delivery_tag"] = urandom(16).hex()
        queue = _queue(client, exchange, routing_key)
        list_name = list_of(queue, int(properties.get("priority") or 0))
        task_id, task = str(headers.get("id", "")), str(headers.get("task", ""))
        return Held(tag, list_name, json.dumps(message), task_id, task)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return Held(tag, "", text(payload), "", "")


def _queue(client: redis.Redis, exchange: Any, routing_key: Any) -> str:
    """The queue that is bound to a direct exchange under this key; the key's namesake if no binding says so.

    Raises:
        TypeError: the key is not a text.
    """
    if exchange:
        for binding in sorted(client.smembers(BINDINGS.format(exchange))):
            key, _pattern, queue = text(binding).split(SEPARATOR)
            if key == routing_key:
                return queue
    if not isinstance(routing_key, str):
        raise TypeError(f"routing key {routing_key!r}")
    return routing_key

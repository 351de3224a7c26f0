"""How deep the queues are, and how long their oldest request has waited."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks import keys
from tasks.journal.connection import translated
from tasks.registry.values import json_object, number
from worker_config.celeryconfig import PRIORITY_STEPS

if TYPE_CHECKING:
    from collections.abc import Iterable

    import redis

#: What kombu puts between the name of a queue and its priority in the name of a list.
SEPARATOR = "\x06\x16"


@dataclass(slots=True, frozen=True)
class QueueDepth:
    """One queue: messages of all priorities, and the age in seconds of the oldest; ``None`` if empty or not known."""

    queue: str
    depth: int
    oldest_s: float | None


def list_of(queue: str, priority: int) -> str:
    """The Redis list in which kombu keeps a queue's messages of one priority."""
    step = max((each for each in PRIORITY_STEPS if each <= priority), default=PRIORITY_STEPS[0])
    return f"{queue}{SEPARATOR}{step}" if step else queue


def lists_of(queue: str) -> list[str]:
    """All lists of a queue, most urgent first."""
    return [list_of(queue, step) for step in PRIORITY_STEPS]


def depths(client: redis.Redis, queues: Iterable[str]) -> list[QueueDepth]:
    """Each queue's depth and the age of its oldest message.

    The age comes from the ledger, else from a message header ``submitted_at``; consumers pop from the right, so the
    oldest of each list is at its right end.

    Raises:
        BrokerUnavailable: Redis cannot be reached or refuses for now.
    """
    names = list(queues)
    lists = [each for queue in names for each in lists_of(queue)]
    with translated("reading the queues"):
        pipeline = client.pipeline(transaction=False)
        pipeline.time()
        for each in lists:
            pipeline.llen(each)
            pipeline.lindex(each, -1)
        # A key of another type answers with an error of its own, which must not hide the other queues.
        (seconds, microseconds), *found = pipeline.execute(raise_on_error=False)
        heads = [_headers(each) for each in found[1::2]]
        submitted = _submitted(client, heads)
    now = seconds + microseconds / 1e6
    lengths = [each if isinstance(each, int) else 0 for each in found[::2]]
    ages = [None if at is None else max(0.0, now - at) for at in submitted]
    steps = len(PRIORITY_STEPS)
    return [
        QueueDepth(
            queue,
            sum(lengths[i * steps : (i + 1) * steps]),
            max((age for age in ages[i * steps : (i + 1) * steps] if age is not None), default=None),
        )
        for i, queue in enumerate(names)
    ]


def _submitted(client: redis.Redis, heads: list[dict[str, Any]]) -> list[float | None]:
    ids = [str(head.get("id", "")) for head in heads]
    entries: Any = client.hmget(keys.LEDGER, ids) if ids else []
    return [
        number(json_object(entry).get("at", head.get("submitted_at")))
        for entry, head in zip(entries, heads, strict=True)
    ]


def _headers(message: Any) -> dict[str, Any]:
    headers = json_object(message).get("headers")
    return headers if isinstance(headers, dict) else {}

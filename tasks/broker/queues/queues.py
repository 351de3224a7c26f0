"""The depth of queues, and the wait of their oldest requests."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tasks.broker.queues.references import referred
from tasks.registry.values import json_object, number, text
from tasks.server import keys
from tasks.server.connection import translated
from worker_config.celeryconfig import PRIORITY_STEPS

if TYPE_CHECKING:
    from collections.abc import Iterable

    import redis

#: Kombu's separator between the name of a queue and its priority in the name of a list.
SEPARATOR = "\x06\x16"
#: The separator between a priority and a model in the name of a list of requests that were set aside.
FOR_MODEL = "@"
#: The mark there before the node of a worker, in the name of its lane. No model's name begins with it.
FOR_WORKER = f"{FOR_MODEL}>"


@dataclass(slots=True, frozen=True)
class QueueDepth:
    """One queue: messages of all priorities, and the age in seconds of the oldest; ``None`` if empty or not known.

    ``scheduled`` counts further messages, which are not due yet.
    """

    queue: str
    depth: int
    oldest_s: float | None
    scheduled: int = 0


@lru_cache(4096)
def list_of(queue: str, priority: int) -> str:
    """The Redis list in which kombu keeps a queue's messages of one priority."""
    step = max((possible for possible in PRIORITY_STEPS if possible <= priority), default=PRIORITY_STEPS[0])
    return f"{queue}{SEPARATOR}{step}" if step else queue


def lists_of(queue: str) -> list[str]:
    """All lists of a queue, most urgent first."""
    return [list_of(queue, step) for step in PRIORITY_STEPS]


@lru_cache(4096)
def aside_list(queue: str, priority: int, model: str) -> str:
    """The list of a queue's requests of one priority that were set aside for one model (:mod:`.aside`).

    Kombu takes what is before the last separator for the queue's name.
    """
    step = max((possible for possible in PRIORITY_STEPS if possible <= priority), default=PRIORITY_STEPS[0])
    return f"{queue}{SEPARATOR}{step}{FOR_MODEL}{model}"


@lru_cache(4096)
def lane_of(queue: str, priority: int, node: str = "") -> str:
    """The lane of a worker: the list of a queue's requests of one priority that wait for it (:mod:`.lanes`)."""
    return aside_list(queue, priority, f"{FOR_WORKER.removeprefix(FOR_MODEL)}{node}")


def node_of(list_name: str) -> str:
    """The worker whose lane this list is; empty for every other list."""
    return list_name.partition(SEPARATOR)[2].partition(FOR_WORKER)[2]


def common_list(list_name: str) -> str:
    """The list that every worker takes from, of the same queue and priority as a worker's lane; any other list is itself."""
    if not node_of(list_name):
        return list_name
    queue, _, rest = list_name.partition(SEPARATOR)
    return list_of(queue, int(rest.partition(FOR_WORKER)[0]))


def queue_and_model(list_name: str) -> tuple[str, str]:
    """The queue of a list, and the model that its requests were set aside for; empty where that is not why they are there."""
    queue, _, rest = list_name.partition(SEPARATOR)
    return queue, "" if node_of(list_name) else rest.partition(FOR_MODEL)[2]


def depths(client: redis.Redis, queues: Iterable[str]) -> list[QueueDepth]:
    """Return each queue's depth, with messages that were set aside, and the age of its oldest message.

    The age comes from the ledger, else from a message header ``submitted_at``; consumers pop from the right, so the
    oldest of each list is at its right end.

    Raises:
        BrokerUnavailable: Redis cannot be reached or refuses for now.
    """
    lists = {queue: lists_of(queue) for queue in queues}
    with translated("reading the queues"):
        members: Any = client.zrange(keys.ASIDE, 0, -1) if lists else []
        for name in map(text, members):
            queue, _ = queue_and_model(name)
            if queue in lists:
                lists[queue].append(name)
        flat = [name for of_queue in lists.values() for name in of_queue]
        pipeline = client.pipeline(transaction=False)
        pipeline.time()
        for name in flat:
            pipeline.llen(name)
            pipeline.lindex(name, -1)
        for queue in lists:
            pipeline.zcard(keys.scheduled(queue))
        # A key of another type answers with an error of its own, which must not hide the other queues.
        (seconds, microseconds), *answers = pipeline.execute(raise_on_error=False)
        found, scheduled = answers[: 2 * len(flat)], dict(zip(lists, answers[2 * len(flat) :], strict=True))
        heads = [_headers(item) for item in found[1::2]]
        submitted = dict(zip(flat, _submitted(client, heads), strict=True))
    now = seconds + microseconds / 1e6
    lengths = {name: count if isinstance(count, int) else 0 for name, count in zip(flat, found[::2], strict=True)}
    ages = {name: max(0.0, now - at) for name, at in submitted.items() if at is not None}
    return [
        QueueDepth(
            queue,
            sum(lengths[name] for name in of_queue),
            max((ages[name] for name in of_queue if name in ages), default=None),
            scheduled[queue] if isinstance(scheduled[queue], int) else 0,
        )
        for queue, of_queue in lists.items()
    ]


def waiting_in(client: redis.Redis, queues: Iterable[str]) -> int:
    """Count the messages that wait in these queues, of all priorities, without those that were set aside.

    Raises:
        BrokerUnavailable: Redis cannot be reached or refuses for now.
    """
    return sum(more_urgent_in(client, queues, PRIORITY_STEPS[-1] + 1).values())


def more_urgent_in(client: redis.Redis, queues: Iterable[str], priority: int, node: str = "") -> dict[str, int]:
    """Count the more urgent messages that wait in each of these queues, without those that were set aside.

    Args:
        client: answers in bytes.
        queues: the queues.
        priority: of the messages that are not counted, nor are less urgent ones.
        node: the worker whose lane is counted, too.

    Raises:
        BrokerUnavailable: Redis cannot be reached or refuses for now.
    """
    steps = [step for step in PRIORITY_STEPS if step < priority]
    names = [(queue, list_of(queue, step)) for queue in queues for step in steps]
    if node:
        names += [(queue, lane_of(queue, step, node)) for queue in queues for step in steps]
    found = dict.fromkeys((queue for queue, _ in names), 0)
    if not names:
        return found
    with translated("reading the queues"):
        pipeline = client.pipeline(transaction=False)
        for _, name in names:
            pipeline.llen(name)
        counts = pipeline.execute(raise_on_error=False)
    for (queue, _), count in zip(names, counts, strict=True):
        found[queue] += count if isinstance(count, int) else 0
    return found


def _submitted(client: redis.Redis, heads: list[dict[str, Any]]) -> list[float | None]:
    ids = [str(head.get("id", "")) for head in heads]
    entries: Any = client.hmget(keys.LEDGER, ids) if ids else []
    return [
        number(json_object(entry).get("at", head.get("submitted_at")))
        for entry, head in zip(entries, heads, strict=True)
    ]


def _headers(item: Any) -> dict[str, Any]:
    if isinstance(item, bytes) and (task_id := referred(item)) is not None:
        return {"id": task_id}
    headers = json_object(item).get("headers")
    return headers if isinstance(headers, dict) else {}

"""All open requests: those that wait, and those that workers hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tasks.broker.inventory.contents import Contents, contents_of, held_message
from tasks.broker.queues.queues import queue_and_model
from tasks.broker.queues.references import reference
from tasks.messages.journal import End, Error, Release, Token, decode
from tasks.names import is_ours
from tasks.registry.values import json_object, number, text
from tasks.server import keys
from tasks.server.connection import translated

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from tasks.messages.journal import Entry

Place: TypeAlias = Literal["scheduled", "waiting", "held", "running", "ended"]

PAGE = 500
#: More requests than this are counted by ``fleet``, and not listed.
MOST = 5_000


@dataclass(slots=True, frozen=True)
class OpenRequest:
    """One request. ``age_s`` is since it was queued or, where a worker has it, since that worker fetched it.

    ``place``: ``held`` is fetched by a worker and not claimed, since its model is being loaded; ``ended`` is about to be
    acknowledged. ``worker`` is a node name, ``tokens`` what there is of the answer.
    """

    task_id: str
    place: Place
    model: str | None
    queue: str
    worker: str | None
    age_s: float | None
    tokens: int


def open_requests(client: redis.Redis) -> list[OpenRequest]:
    """Requests that workers hold, then those that wait, the oldest first; at most :data:`MOST` of each.

    Raises:
        BrokerUnavailable: Redis cannot be reached, or refuses this client.
    """
    with translated("reading the requests"):
        seconds, microseconds = client.time()
        now = seconds + microseconds / 1e6
        held = list(_held(client, now))
        known = {request.task_id for request in held}
        waiting = [request for request in _ledger(client, now) if request.task_id not in known]
    return [*_oldest_first(held), *_oldest_first(waiting)]


def _oldest_first(requests: list[OpenRequest]) -> list[OpenRequest]:
    return sorted(requests, key=lambda request: -(request.age_s or 0.0))


def _ledger(client: redis.Redis, now: float) -> Iterator[OpenRequest]:
    entries: dict[str, dict[str, Any]] = {}
    cursor = 0
    while len(entries) < MOST:
        page: Any = client.hscan(keys.LEDGER, cursor, count=PAGE)
        cursor, found = page
        entries.update((text(task_id), json_object(entry)) for task_id, entry in found.items())
        if not cursor:
            break
    scheduled = _scheduled(client, entries)
    for task_id, entry in entries.items():
        queue, model = queue_and_model(str(entry.get("queue", "")))
        at = number(entry.get("at"))
        yield OpenRequest(
            task_id=task_id,
            place="scheduled" if task_id in scheduled else "waiting",
            model=model or contents_of(json_object(entry.get("message"))).model,
            queue=queue,
            worker=None,
            age_s=None if at is None else max(0.0, now - at),
            tokens=0,
        )


def _scheduled(client: redis.Redis, entries: dict[str, dict[str, Any]]) -> set[str]:
    """Those of these that are not due yet; asked only for queues that have such messages at all."""
    queues = {queue_and_model(str(entry.get("queue", "")))[0] for entry in entries.values()}
    busy = {queue for queue in queues if client.zcard(keys.scheduled(queue))}
    looked_up = []
    pipeline = client.pipeline(transaction=False)
    for task_id, entry in entries.items():
        name = str(entry.get("queue", ""))
        queue, _ = queue_and_model(name)
        for item in (reference(task_id), entry.get("message")) if queue in busy else ():
            looked_up.append(task_id)
            pipeline.zscore(keys.scheduled(queue), f"{name}\n{item}")
    return {task_id for task_id, at in zip(looked_up, pipeline.execute(), strict=True) if at is not None}


def _held(client: redis.Redis, now: float) -> Iterator[OpenRequest]:
    """Yield the messages that workers hold, each with the last entry of its journal."""
    found: list[tuple[Contents, str, float | None]] = []
    owners: Any = client.smembers(keys.OWNERS)
    for identity in sorted(map(text, owners)):
        messages: Any = client.hgetall(keys.unacked(identity))
        fetched: Any = client.zrange(keys.unacked_index(identity), 0, -1, withscores=True)
        since = {text(tag): at for tag, at in fetched}
        for tag, payload in messages.items():
            contents = contents_of(held_message(payload))
            if is_ours(contents.task):
                found.append((contents, identity.partition("#")[0], since.get(text(tag))))
    del found[MOST:]
    pipeline = client.pipeline(transaction=False)
    for contents, _, _ in found:
        pipeline.xrevrange(keys.stream(contents.task_id), count=1)
    for (contents, worker, at), entries in zip(found, pipeline.execute(), strict=True):
        newest = decode(entries[0][1].get(b"d", b"")) if entries else None
        yield OpenRequest(
            task_id=contents.task_id,
            place=_place(newest),
            model=contents.model,
            queue=contents.queue,
            worker=worker,
            age_s=None if at is None else max(0.0, now - at),
            tokens=newest.index + len(newest.ids) if isinstance(newest, Token) else 0,
        )


def _place(newest: Entry | None) -> Place:
    if isinstance(newest, End | Error):
        return "ended"
    return "held" if newest is None or isinstance(newest, Release) else "running"

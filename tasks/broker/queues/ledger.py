"""The ledger of open requests: what was queued, and not yet claimed by any worker.

A message can be lost between the BRPOP that takes it out of its queue and the write that notes who holds it. The ledger
is written in the same step as the message is queued, and a claim deletes its entry, so an entry that stays while its
message is nowhere tells of such a loss. An entry is JSON, field = task id::

    {"at": 1767225600.25, "queue": "tier-3-7B", "message": "{...}", "resent": 1}

``at`` is when it was queued, by Redis's clock; ``queue`` the Redis list (queue and priority), which has a reference to the entry
(:mod:`.references`); ``message`` kombu's text; ``resent`` how often it was sent again; ``model`` the model of a new request, as
its producer names it. ``purged`` says that the message was taken out of its queue for good, and that the request's journal has
not ended yet (:mod:`tasks.broker.inventory.purge`).
"""

from __future__ import annotations

import json
import logging
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tasks.broker import scripts
from tasks.broker.queues.queues import SEPARATOR, common_list
from tasks.broker.queues.references import referred, with_references
from tasks.registry.values import json_object, text
from tasks.server import keys
from tasks.server.connection import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import redis

logger = logging.getLogger(__name__)

#: An entry so old whose message is nowhere is lost. A worker's claim follows its fetch within milliseconds.
GRACE_S = 5.0
#: A message that was found in its queue is not looked for again before this.
SEEN_S = 30.0
#: A request that was sent again this often, and was lost each time, is given up with an error.
RESENT_MAX = 5
PAGE = 200
#: Reading a deep backlog takes time of Redis: a hundredth of it, or more where looks would be further apart than this.
DUTY = 0.01
MOST_PAUSE_S = 30.0
#: How many times as much processor time as this thread Redis may need for a look: with prompts of 8 kB it was 1.6 times. On a
#: busy machine a look lasts longer than both together, and costs no more.
REDIS_SHARE = 8

_TASK_ID = re.compile(rb'"correlation_id": ?"([^"\\]+)"')


@dataclass(slots=True, frozen=True)
class Lost:
    """An overdue request that is in no queue and held by no worker. ``entry`` is its entry as it was read."""

    task_id: str
    entry: bytes
    queue: str
    message: str
    resent: int
    purged: bool = False


@dataclass(slots=True)
class Ledger:
    """Finds lost requests and sends them again. For one thread.

    Args:
        client: answers in bytes.
        clock: monotonic seconds.
        grace_s: a request that is taken is not missed for so long.
        duty: the share of Redis's time that looking may take.
        effort: the processor time of this thread so far, in seconds.
    """

    client: redis.Redis
    clock: Callable[[], float]
    grace_s: float = GRACE_S
    duty: float = DUTY
    effort: Callable[[], float] = time.thread_time
    _seen: dict[str, float] = field(default_factory=dict)
    _missing: set[str] = field(default_factory=set)
    _not_before: float = 0.0

    def lost(self) -> list[Lost]:
        """The requests that were nowhere now and at the last call.

        One that moves on meanwhile is seen, because the place it goes to is looked at after the place it comes from;
        one that is given back meanwhile may be missed, and is seen the next time.

        Raises:
            BrokerUnavailable: Redis cannot be reached or refuses for now.
        """
        started, effort = self.clock(), self.effort()
        if started < self._not_before:
            return []
        with translated("reading the ledger"):
            overdue = dict(self._overdue())
            self._seen = {
                task_id: at for task_id, at in self._seen.items() if started - at < SEEN_S and task_id in overdue
            }
            wanted = overdue.keys() - self._seen.keys()
            if wanted:
                lists = {json.loads(overdue[task_id]) for task_id in wanted if overdue[task_id]}
                # A message that is due goes from the schedule to its list, so the list is read after the schedule.
                waiting = self._scheduled(lists) | self._queued(lists)
                self._seen.update(dict.fromkeys(wanted & waiting, started))
                wanted -= waiting
            if wanted:
                wanted -= _held(self.client)
            missing, self._missing = wanted & self._missing, wanted
            lost = self._entries(sorted(missing))
        cost_s = min(self.clock() - started, REDIS_SHARE * (self.effort() - effort))
        self._not_before = started + min(cost_s / self.duty, MOST_PAUSE_S)
        return lost

    def resend(self, lost: Lost) -> bool:
        """Queue it again, at the front. ``False`` if it was claimed, or sent again by somebody else, since it was read.

        A needless resend does no harm: the claim of the second message finds the first one's.

        Raises:
            BrokerUnavailable: Redis cannot be reached or refuses for now.
        """
        return self._replace(lost, lost.message)

    def give_up(self, lost: Lost) -> bool:
        """Delete its entry. ``False`` if it is another one now.

        Raises:
            BrokerUnavailable: Redis cannot be reached or refuses for now.
        """
        return self._replace(lost, "")

    def _replace(self, lost: Lost, message: str) -> bool:
        script = self.client.register_script(with_references("resend"))
        self._missing.discard(lost.task_id)
        with translated(f"sending {lost.task_id} again"):
            # Not into the lane of a worker, which may be why the message is lost.
            return bool(
                script([keys.LEDGER, common_list(lost.queue)], [lost.task_id, lost.entry, message, lost.resent + 1])
            )

    def _overdue(self) -> Iterator[tuple[str, str]]:
        """Task ids, and their lists as JSON strings, of the entries that are older than the grace."""
        script = self.client.register_script(scripts.source("overdue"))
        cursor = b"0"
        while True:
            cursor, flat = script([keys.LEDGER], [cursor, PAGE, self.grace_s])
            for task_id, list_name in zip(flat[::2], flat[1::2], strict=True):
                yield text(task_id), text(list_name)
            if int(cursor) == 0:
                return

    def _scheduled(self, lists: Iterable[str]) -> set[str]:
        """The task ids of all messages that are due and that no worker has queued yet, since none is there."""
        found: set[str] = set()
        now, _ = self.client.time()
        for queue in {name.partition(SEPARATOR)[0] for name in lists}:
            start = 0
            while page := self._due(queue, now, start):
                found.update(_task_ids(item.partition(b"\n")[2] for item in page))
                start += PAGE
        return found

    def _due(self, queue: str, now: int, start: int) -> list[bytes]:
        page: Any = self.client.zrangebyscore(keys.scheduled(queue), "-inf", now, start=start, num=PAGE)
        return list(page)

    def _queued(self, lists: Iterable[str]) -> set[str]:
        """The task ids of all messages in these lists."""
        found: set[str] = set()
        for name in lists:
            # From the left, where messages come in: those that are pushed or taken meanwhile move nothing past us.
            start = 0
            while page := self._page(name, start):
                found.update(_task_ids(page))
                start += PAGE
        return found

    def _page(self, name: str, start: int) -> list[bytes]:
        page: Any = self.client.lrange(name, start, start + PAGE - 1)
        return list(page)

    def _entries(self, task_ids: list[str]) -> list[Lost]:
        entries: Any = self.client.hmget(keys.LEDGER, task_ids) if task_ids else []
        found = []
        for task_id, entry in zip(task_ids, entries, strict=True):
            if entry is not None:
                values = json_object(entry)
                queue, message, resent = values.get("queue"), values.get("message"), values.get("resent", 0)
                if isinstance(queue, str) and isinstance(message, str) and isinstance(resent, int):
                    found.append(Lost(task_id, entry, queue, message, resent, values.get("purged") is True))
                else:  # an entry that nobody can read can only be given up
                    found.append(Lost(task_id, entry, "", "", RESENT_MAX))
        return found


def forget(client: redis.Redis, task_id: str) -> None:
    """Delete the entry of a request that has ended without a claim, once the worker that took its message has settled it.

    Raises:
        BrokerUnavailable: Redis cannot be reached or refuses for now.
    """
    with translated(f"forgetting {task_id}"):
        client.hdel(keys.LEDGER, task_id)


def known(client: redis.Redis, task_ids: Iterable[str]) -> set[str]:
    """Those of these ids that are requests: submitted and not claimed yet, or with a journal.

    Raises:
        BrokerUnavailable: Redis cannot be reached or refuses for now.
    """
    ids = list(task_ids)
    pipeline = client.pipeline(transaction=False)
    for task_id in ids:
        # In this order: a claim writes the one in the script that deletes the other.
        pipeline.hexists(keys.LEDGER, task_id)
        pipeline.exists(keys.stream(task_id))
    with translated(f"looking for {len(ids)} requests"):
        replies = pipeline.execute()
    return {
        task_id for task_id, entry, journal in zip(ids, replies[::2], replies[1::2], strict=True) if entry or journal
    }


def unattended(client: redis.Redis, task_ids: Iterable[str]) -> set[str]:
    """Those of these ids that are neither in the ledger nor held by a worker: nobody works on them, whatever their journals say.

    One that moves meanwhile may be among them. It reads all that workers hold.

    Raises:
        BrokerUnavailable: Redis cannot be reached, or this client may not read what workers hold.
    """
    ids = list(task_ids)
    if not ids:
        return set()
    with translated(f"looking for {len(ids)} requests"):
        entries: Any = client.hmget(keys.LEDGER, ids)
        return {task_id for task_id, entry in zip(ids, entries, strict=True) if entry is None} - _held(client)


def _held(client: redis.Redis) -> set[str]:
    """The task ids of all messages that workers hold."""
    owners: Any = client.smembers(keys.OWNERS)
    found: set[str] = set()
    for identity in owners:
        messages: Any = client.hvals(keys.unacked(text(identity)))
        found.update(_task_ids(messages))
    return found


def _task_ids(messages: Iterable[bytes]) -> Iterator[str]:
    for message in messages:
        match = _TASK_ID.search(message)
        if (task_id := referred(message)) is not None:
            yield task_id
        elif match:
            yield text(match.group(1))
        else:
            # Written by another client, which need not say it twice.
            headers = json_object(message).get("headers")
            if isinstance(headers, dict):
                yield str(headers.get("id"))

"""Requests on their way into their queue: the call of put.lua, and the meaning of its reply."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.broker import scripts
from tasks.broker.message.fingerprint import other_request
from tasks.broker.message.message import message_text
from tasks.broker.queues.lanes import SILENT_S, WARM_S
from tasks.broker.queues.limits import wait_s
from tasks.broker.queues.queues import SEPARATOR, lane_of, list_of, lists_of
from tasks.broker.queues.references import with_references
from tasks.errors import QueueFull
from tasks.messages.encoding import to_compact_json
from tasks.server import keys
from tasks.server.script import Script
from worker_config.celeryconfig import PRIORITY_STEPS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.broker.submission.terms import Terms
    from tasks.errors import GenerationError
    from tasks.server.script import Evaluator

_CONSTANTS = f"local LIVE_S, WARM_S = {SILENT_S:g}, {WARM_S}\n"
PUT = Script(_CONSTANTS + scripts.source("place") + with_references("put"))


class Destination(NamedTuple):
    """The destination of requests.

    ``lists`` are the list to push to, then the queue's others. ``push`` is ``LPUSH`` for its end, ``RPUSH`` for its front.
    """

    queue: str
    priority: int
    lists: tuple[str, ...]
    push: str


@lru_cache(maxsize=1_024)
def destination(queue: str, priority: int, *, push: str = "LPUSH", aside: str = "") -> Destination:
    """Return the destination of messages of this queue and priority; ``aside`` takes the place of the list of waiting ones."""
    own = list_of(queue, priority)
    others = (name for name in lists_of(queue) if name != own)
    return Destination(queue, priority, (aside or own, *others), push)


class Put(NamedTuple):
    """One request: where it goes, its message, and the terms on which it is queued."""

    destination: Destination
    task_id: str
    text: str
    terms: Terms

    @classmethod
    def of(cls, message: dict[str, Any], destination: Destination, terms: Terms) -> Put:
        """The request of a message."""
        return cls(destination, message["headers"]["id"], message_text(message), terms)

    @property
    def alike(self) -> tuple[Destination, int | None, int]:
        """The properties that all requests of one call have in common."""
        return self.destination, self.terms.floor, self.terms.kept_s

    def refusal(self, reason: Sequence[Any]) -> GenerationError:
        """The error that a reply of the script stands for, without the number."""
        return refusal(reason, self.task_id, f"wait in {self.destination.queue}")


class Call(NamedTuple):
    """One call of put.lua."""

    names: tuple[str, ...]
    arguments: tuple[str | int, ...]


def call_of(puts: Sequence[Put]) -> Call:
    """The call that queues requests which are alike (:attr:`Put.alike`), in order."""
    (queue, priority, lists, push), floor, kept_s = puts[0].alike
    names = (keys.LEDGER, keys.LIMITS, keys.ASIDE, *lists, *(keys.request(put.task_id) for put in puts))
    # Batch work has no hurry, and often nothing in common: it goes where a beginning is warm, and else to any idle worker.
    cold = int(priority < PRIORITY_STEPS[-1])
    place = (lane_of(queue, priority), cold, keys.AFFINITY, keys.unacked(""), len(lists))
    parts = (part for put in puts for part in _parts(put))
    return Call(names, (push, queue, "" if floor is None else floor, SEPARATOR, kept_s, *place, *parts))


def _parts(put: Put) -> tuple[str, ...]:
    model = put.terms.model
    return (
        put.text,
        put.task_id,
        put.terms.fingerprint,
        put.terms.digests,
        "" if model is None else to_compact_json(model),
    )


def queue_one(evaluator: Evaluator, put: Put) -> GenerationError | None:
    """Queue a request; the error where it is refused.

    Raises:
        redis.exceptions.RedisError: untranslated.
    """
    reply = PUT(evaluator, *call_of([put]))
    return put.refusal(reply[1:]) if reply else None


def refusal(reason: Sequence[Any], task_id: str, where: str) -> GenerationError:
    """The error of a request that put.lua or schedule.lua refuses.

    Args:
        reason: the script's answer.
        task_id: the request.
        where: what the others do, as in "wait in tier-under-3B".
    """
    if len(reason) == 1:
        return other_request(task_id)
    depth, bound, limit = reason
    retry_after_s = wait_s(depth - bound + 1, limit)
    hint = f"try again in {retry_after_s:g} s" if retry_after_s else "start more workers, or try again later"
    return QueueFull(f"{depth} requests {where}, the bound is {bound}: {hint}", depth, bound, retry_after_s)

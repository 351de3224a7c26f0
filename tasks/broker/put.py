"""One request on its way into its queue: the call of put.lua, and what its reply means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kombu.utils.json import dumps

from tasks.broker import scripts
from tasks.broker.fingerprint import other_request
from tasks.broker.lanes import SILENT_S, WARM_S
from tasks.broker.limits import wait_s
from tasks.broker.queues import SEPARATOR, lane_of
from tasks.broker.references import with_references
from tasks.errors import QueueFull
from tasks.server import keys
from tasks.server.script import Script
from worker_config.celeryconfig import PRIORITY_STEPS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.broker.terms import Terms
    from tasks.errors import GenerationError

_CONSTANTS = f"local LIVE_S, WARM_S = {SILENT_S:g}, {WARM_S}\n"
PUT = Script(_CONSTANTS + scripts.source("place") + with_references("put"))


@dataclass(frozen=True, slots=True)
class Put:
    """The keys and the arguments of one call of put.lua."""

    names: tuple[str, ...]
    arguments: tuple[str | int, ...]

    @classmethod
    def of(cls, message: dict[str, Any], queue: str, lists: Sequence[str], push: str, terms: Terms) -> Put:
        """The call that queues a message.

        Args:
            message: as kombu writes it.
            queue: the queue.
            lists: the list to push to, then the queue's other lists.
            push: ``LPUSH`` for its end, ``RPUSH`` for its front.
            terms: what the script has to know of the request.
        """
        task_id = message["headers"]["id"]
        names = (keys.LEDGER, keys.LIMITS, keys.ASIDE, keys.request(task_id), *lists)
        priority = int(message["properties"].get("priority") or 0)
        # Batch work has no hurry, and often nothing in common: it goes where a beginning is warm, and else to whoever is idle.
        cold = int(priority < PRIORITY_STEPS[-1])
        place = (",".join(prefix.digest for prefix in terms.prefixes), lane_of(queue, priority), cold)
        floor = "" if terms.floor is None else terms.floor
        told = (terms.fingerprint, terms.kept_s, *place, keys.AFFINITY, keys.unacked(""))
        return cls(names, (dumps(message), task_id, push, queue, floor, SEPARATOR, *told))

    @property
    def text(self) -> str:
        """The message."""
        return str(self.arguments[0])

    @property
    def task_id(self) -> str:
        """The request."""
        return str(self.arguments[1])

    def refusal(self, reply: Sequence[Any]) -> GenerationError | None:
        """The error that the script's reply stands for; ``None`` if the message was queued."""
        return refusal(reply, self.task_id, f"wait in {self.arguments[3]}")


def refusal(reply: Sequence[Any], task_id: str, where: str) -> GenerationError | None:
    """The error that the reply of put.lua or schedule.lua stands for; ``None`` if the request was taken.

    Args:
        reply: what the script said.
        task_id: the request.
        where: what the others do, as in "wait in tier-under-3B".
    """
    if not reply:
        return None
    if len(reply) == 1:
        return other_request(task_id)
    depth, bound, limit = reply
    retry_after_s = wait_s(depth - bound + 1, limit)
    hint = f"try again in {retry_after_s:g} s" if retry_after_s else "start more workers, or try again later"
    return QueueFull(f"{depth} requests {where}, the bound is {bound}: {hint}", depth, bound, retry_after_s)

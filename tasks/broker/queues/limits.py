"""Backpressure: how many requests may wait in each queue, and how fast they are served. The sweep writes it, producers obey."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tasks.broker.queues.queues import SEPARATOR
from tasks.broker.queues.references import with_references
from tasks.messages.encoding import to_json
from tasks.messages.registry import WorkerRecord
from tasks.registry.values import json_object, number
from tasks.server import keys
from tasks.server.connection import translated
from worker_config.celeryconfig import PRIORITY_STEPS
from worker_config.tiers import QUEUES

if TYPE_CHECKING:
    from collections.abc import Iterable

    import redis

    from tasks.messages.registry import Unreadable
    from worker_config.settings import Settings


@dataclass(slots=True, frozen=True)
class QueueLimit:
    """One queue's bound in requests, and the requests per second that its workers served recently."""

    bound: int
    per_s: float


@dataclass(slots=True, frozen=True)
class Position:
    """The place of a request: how many are ahead of it, and for how long that may take; ``None`` where nothing was served yet.

    One that is scheduled (``countdown``) waits for its time at least.
    """

    ahead: int
    wait_s: float | None


def limits_of(records: Iterable[WorkerRecord | Unreadable], settings: Settings) -> dict[str, QueueLimit]:
    """Each tier queue's limit: so many requests for each live slot, and never fewer than the floor."""
    slots = dict.fromkeys(QUEUES, 0)
    per_s = dict.fromkeys(QUEUES, 0.0)
    for record in records:
        if isinstance(record, WorkerRecord) and record.status != "draining":
            for queue in slots.keys() & record.slots.keys():
                slots[queue] += record.slots[queue]
                per_s[queue] += _served_per_s(record, queue)
    return {
        queue: QueueLimit(max(settings.queue_floor, count * settings.queue_per_slot), round(per_s[queue], 4))
        for queue, count in slots.items()
    }


def _served_per_s(record: WorkerRecord, queue: str) -> float:
    """Return how many of this queue's requests a worker ends each second."""
    queues = record.metrics.get("queues")
    of_queue = queues.get(queue) if isinstance(queues, dict) else None
    return (number(of_queue.get("requests_per_s")) or 0.0) if isinstance(of_queue, dict) else 0.0


def write_limits(client: redis.Redis, limits: dict[str, QueueLimit]) -> None:
    """Make these the fleet's limits.

    Raises:
        BrokerUnavailable: Redis cannot be reached or refuses for now.
    """
    with translated("writing the queues' limits"):
        client.hset(keys.LIMITS, mapping={queue: to_json(asdict(limit)) for queue, limit in limits.items()})


def wait_s(requests: int, limit: str | bytes) -> float | None:
    """Return how long so many requests take by a stored limit's throughput; ``None`` where nothing is known of it."""
    per_s = number(json_object(limit).get("per_s")) if limit else None
    return round(requests / per_s, 1) if per_s else None


def position(client: redis.Redis, task_id: str) -> Position | None:
    """Return a request's place; ``None`` if it waits in no queue: it runs, has ended, or was never sent.

    Raises:
        BrokerUnavailable: Redis cannot be reached or refuses for now.
    """
    script = client.register_script(with_references("position"))
    with translated(f"position of {task_id}"):
        reply: Any = script([keys.LEDGER, keys.LIMITS], [task_id, SEPARATOR, keys.scheduled(""), *PRIORITY_STEPS])
    if reply is None:
        return None
    ahead, limit, due_ms = reply
    queued_s = wait_s(int(ahead) + 1, limit)
    return Position(int(ahead), max(queued_s or 0.0, int(due_ms) / 1000) if due_ms else queued_s)

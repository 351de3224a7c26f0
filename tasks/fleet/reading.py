"""Reading the state of the fleet out of Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.broker.queues.queues import QueueDepth, depths
from tasks.errors import BrokerUnavailable
from tasks.fleet.state import ORDER, FleetState, QueueView, WorkerView
from tasks.messages.registry import Unreadable, WorkerRecord
from tasks.registry import Registry
from tasks.server.connection import translated
from worker_config.tiers import QUEUES, TIERS

if TYPE_CHECKING:
    import redis

_TIER_NAMES = {tier.queue: tier.name for tier in TIERS}


def read_state(client: redis.Redis) -> FleetState:
    """Look at the fleet, in seven round trips for any size.

    Raises:
        BrokerUnavailable: Redis cannot be reached or refuses for now.
    """
    registry = Registry(client)
    reading = registry.read()
    swept_at, swept_by = registry.last_sweep()
    records = [known for known in reading.records if isinstance(known, WorkerRecord)]
    workers = [
        WorkerView(
            record,
            max(0.0, reading.now - record.beat_at),
            max(0.0, record.beat_at - record.loop_at),
            record.identity in reading.leases,
        )
        for record in records
    ]
    used, most = _redis_memory(client)
    others = sorted({queue for record in records for queue in record.queues} - set(QUEUES))
    return FleetState(
        now=reading.now,
        workers=sorted(workers, key=lambda worker: (ORDER.index(worker.condition), worker.record.node)),
        unreadable=[record for record in reading.records if isinstance(record, Unreadable)],
        queues=[_queue_view(depth, workers) for depth in depths(client, (*QUEUES, *others))],
        swept_s=None if swept_at is None else max(0.0, reading.now - swept_at),
        swept_by=swept_by,
        redis_bytes=used,
        redis_most_bytes=most,
    )


def _redis_memory(client: redis.Redis) -> tuple[int | None, int]:
    """The bytes that Redis uses, and its bound; nothing where this user may not ask for them."""
    try:
        with translated("reading Redis' memory"):
            found: Any = client.info("memory")
    except BrokerUnavailable:
        return None, 0
    used, most = found.get("used_memory"), found.get("maxmemory")
    return (used if isinstance(used, int) else None), (most if isinstance(most, int) else 0)


def _queue_view(depth: QueueDepth, workers: list[WorkerView]) -> QueueView:
    serving = [worker.record for worker in workers if worker.serves(depth.queue)]
    return QueueView(
        queue=depth.queue,
        tier=_TIER_NAMES.get(depth.queue, ""),
        depth=depth.depth,
        oldest_s=depth.oldest_s,
        workers=len(serving),
        slots=sum(record.slots.get(depth.queue, 0) for record in serving),
        busy=sum(record.busy.get(depth.queue, 0) for record in serving),
        scheduled=depth.scheduled,
    )

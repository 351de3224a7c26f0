"""The fleet at one moment: workers, queues, and what somebody should look into."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tasks.broker.queues import QueueDepth, depths
from tasks.cli.overview.words import age, counted
from tasks.errors import BrokerUnavailable
from tasks.messages.registry import Unreadable, WorkerRecord
from tasks.names import COMMAND
from tasks.registry import Registry
from tasks.registry.values import number
from tasks.server.connection import translated
from worker_config.tiers import QUEUES, TIERS

if TYPE_CHECKING:
    import redis

#: Without a sweep for so long there is none.
NO_SWEEP_S = 10.0
#: Celery's loop gives a sign every few seconds; without one for so long it is stuck.
STUCK_S = 30.0
#: What needs a look comes first.
ORDER = ("silent", "stuck", "degraded", "starting", "draining", "online")

_TIER_NAMES = {tier.queue: tier.name for tier in TIERS}


@dataclass(slots=True, frozen=True)
class WorkerView:
    """One worker; ages in seconds, by Redis's clock. ``leased`` says that it is alive for the rest of the fleet."""

    record: WorkerRecord
    beat_age_s: float
    loop_age_s: float
    leased: bool

    @property
    def condition(self) -> str:
        """Its status, or what is worse: ``silent`` (no heartbeat) or ``stuck`` (heartbeats, but Celery's loop stands)."""
        if not self.leased:
            return "silent"
        if self.loop_age_s > STUCK_S:
            return "stuck"
        return self.record.status

    @property
    def reason(self) -> str:
        """Why it is in this condition; may be empty."""
        if self.condition == "silent":
            return f"no heartbeat for {age(self.beat_age_s)}"
        if self.condition == "stuck":
            return f"no sign of Celery's loop for {age(self.loop_age_s)}"
        return self.record.reason

    def serves(self, queue: str) -> bool:
        """Whether it takes requests from this queue now."""
        takes = self.leased and not self.record.paused and self.record.status != "draining"
        return takes and queue in self.record.queues


@dataclass(slots=True, frozen=True)
class QueueView:
    """One queue: ``tier`` is empty for queues that are not a tier's; slots of the workers that serve it now.

    ``depth`` counts what waits now, ``scheduled`` what is not due yet.
    """

    queue: str
    tier: str
    depth: int
    oldest_s: float | None
    workers: int
    slots: int
    busy: int
    scheduled: int = 0


@dataclass(slots=True, frozen=True)
class Failure:
    """A request that failed on a worker; ``reason`` is empty where it would quote the request."""

    age_s: float
    node: str
    model: str
    code: str
    reason: str


@dataclass(slots=True, frozen=True)
class FleetState:
    """Everything that ``fleet`` shows. ``swept_s`` is how long ago the last sweep was; ``None`` if there was none.

    ``redis_bytes`` is what Redis uses, of ``redis_most_bytes`` (0: no bound); ``None`` where this client may not ask.
    """

    now: float
    workers: list[WorkerView]
    unreadable: list[Unreadable]
    queues: list[QueueView]
    swept_s: float | None
    swept_by: str
    redis_bytes: int | None = None
    redis_most_bytes: int = 0

    @property
    def queues_of_interest(self) -> list[QueueView]:
        """The tiers' queues, and those of other tasks where something waits."""
        return [queue for queue in self.queues if queue.tier or queue.depth or queue.scheduled]

    @property
    def failures(self) -> list[Failure]:
        """The last requests that failed, of all workers, the newest first."""
        found = []
        for worker in self.workers:
            kept = worker.record.metrics.get("failures")
            for values in kept if isinstance(kept, list) else ():
                age_s = number(values.get("age_s")) if isinstance(values, dict) else None
                if age_s is not None:
                    texts = (str(values.get(name) or "") for name in ("model", "code", "reason"))
                    found.append(Failure(age_s + worker.beat_age_s, worker.record.node, *texts))
        return sorted(found, key=lambda failure: failure.age_s)

    @property
    def warnings(self) -> list[str]:
        """What somebody should look into, most urgent first."""
        found = []
        if not self.workers:
            found.append(f"no worker is registered; start one with: {COMMAND} worker")
        if self.swept_s is None or self.swept_s > NO_SWEEP_S:
            since = "ever ran" if self.swept_s is None else f"for {age(self.swept_s)}"
            found.append(f"no sweep {since}, so nobody takes over from a dead worker; start: {COMMAND} beat")
        found += [
            f"{counted(queue.depth, 'request')} in {queue.queue}, which no worker serves"
            for queue in self.queues
            if queue.depth and not queue.workers
        ]
        if self.unreadable:
            found.append(f"{counted(len(self.unreadable), 'record')} cannot be read")
        return found

    def as_json(self) -> dict[str, Any]:
        """The state for programs: every record whole, with ages beside."""
        return {
            "at": self.now,
            "workers": [
                {**asdict(worker.record), **{name: getattr(worker, name) for name in ("condition", "reason", "leased")}}
                | {"beat_age_s": worker.beat_age_s, "loop_age_s": worker.loop_age_s}
                for worker in self.workers
            ],
            "unreadable": [asdict(field) for field in self.unreadable],
            "queues": [asdict(queue) for queue in self.queues],
            "failures": [asdict(failure) for failure in self.failures],
            "redis": {"used_bytes": self.redis_bytes, "most_bytes": self.redis_most_bytes},
            "sweep": {"age_s": self.swept_s, "by": self.swept_by},
            "warnings": self.warnings,
        }


def read_state(client: redis.Redis) -> FleetState:
    """Look at the fleet: seven round trips, whatever its size.

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
        unreadable=[field for field in reading.records if isinstance(field, Unreadable)],
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

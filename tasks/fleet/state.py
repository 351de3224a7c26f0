"""The fleet at one moment: workers, queues, and warnings for an operator."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tasks.fleet.words import age, counted
from tasks.names import COMMAND
from tasks.registry.values import number

if TYPE_CHECKING:
    from tasks.messages.registry import Unreadable, WorkerRecord

#: After this time without a sweep there is none.
NO_SWEEP_S = 10.0
#: Celery's loop gives a sign every few seconds; after this time without one it is stuck.
STUCK_S = 30.0
#: Conditions that need a look come first.
ORDER = ("silent", "stuck", "degraded", "starting", "draining", "online")


@dataclass(slots=True, frozen=True)
class WorkerView:
    """One worker; ages in seconds, by Redis's clock. ``leased`` says that it is alive for the rest of the fleet."""

    record: WorkerRecord
    beat_age_s: float
    loop_age_s: float
    leased: bool

    @property
    def condition(self) -> str:
        """Its status, or a worse condition: ``silent`` (no heartbeat) or ``stuck`` (heartbeats, but Celery's loop stands)."""
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

    ``depth`` counts messages that wait now, ``scheduled`` those that are not due yet.
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

    ``redis_bytes`` is the memory that Redis uses, of ``redis_most_bytes`` (0: no bound); ``None`` where this client may not ask.
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
        """The warnings for an operator, the most urgent first."""
        found = []
        if not self.workers:
            found.append(f"no worker is registered; start one with: {COMMAND} worker")
        if self.swept_s is None or self.swept_s > NO_SWEEP_S:
            since = "ever ran" if self.swept_s is None else f"for {age(self.swept_s)}"
            found.append(f"no sweep {since}, so the requests of a dead worker wait; start: {COMMAND} beat")
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
            "unreadable": [asdict(record) for record in self.unreadable],
            "queues": [asdict(queue) for queue in self.queues],
            "failures": [asdict(failure) for failure in self.failures],
            "redis": {"used_bytes": self.redis_bytes, "most_bytes": self.redis_most_bytes},
            "sweep": {"age_s": self.swept_s, "by": self.swept_by},
            "warnings": self.warnings,
        }

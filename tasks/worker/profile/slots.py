"""Decides how many requests a worker runs at once, by queue and in all, and warns its operator of odd choices."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

from tasks.models.capabilities import slots_for
from tasks.names import has_others
from worker_config.celeryconfig import DEFAULT_QUEUE
from worker_config.tiers import QUEUES, tier_of_queue

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tasks.models.capabilities import Machine

#: More threads than this would only wait for each other.
MOST = 1_000
#: The urgent requests that run beyond the slots beside batch work, as a share of these.
URGENT_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Slots:
    """Slots by the queue of a tier, and in all; other queues share the total."""

    by_queue: dict[str, int]
    total: int
    warnings: tuple[str, ...] = ()


def urgent_slots(slots: int, batch_share: float) -> int:
    """Return how many urgent requests run beyond so many slots, beside batch work; none where that never gives way."""
    return ceil(slots * URGENT_SHARE) if batch_share < 1 else 0


def slots_of(machine: Machine, queues: Sequence[str], typed: int | None) -> Slots:
    """The slots of a worker that consumes these queues; ``typed`` is ``-c``, which caps them."""
    carried = {queue: slots_for(machine, tier_of_queue(queue)) for queue in queues if queue in QUEUES}
    most = sum(carried.values())
    total = min(typed or most or 1, MOST)
    warnings: tuple[str, ...] = ()
    if 0 < most < total and all(queue in carried or queue == DEFAULT_QUEUE for queue in queues):
        warnings = (f"-c {typed}: the tiers of this worker have {most} slots on this machine, and -c only caps them",)
        total = most
    return Slots({queue: min(slots, total) for queue, slots in carried.items()}, total, warnings)


def unrouted_warnings(queues: Iterable[str], tasks: Iterable[str]) -> tuple[str, ...]:
    """A warning for each queue to which nothing is ever sent, in an application that has no other tasks than ours."""
    if has_others(tasks):
        return ()
    return tuple(
        f"no request is routed to the queue {queue!r}: only those sent with queue={queue!r} come here; the tiers' queues are "
        f"{', '.join(QUEUES)}"
        for queue in queues
        if queue not in QUEUES and queue != DEFAULT_QUEUE
    )

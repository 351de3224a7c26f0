"""The window: how many requests of a bulk job may be in Redis at once, queue by queue."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.models.routing import QueueCapacity, snapshot_of
from tasks.registry import Registry
from tasks.registry.values import json_object, number, text
from tasks.server import keys
from tasks.server.connection import connect, translated
from worker_config.celeryconfig import settings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from celery import Celery

#: Requests for each live slot: one runs, one waits for its place, and two cover the time between two looks.
PER_SLOT = 4
#: The window while no worker is up: the first one finds work.
LEAST = 16
LOOK_EVERY_S = 2.0
#: Other producers keep this share of what a queue takes.
SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Fleet:
    """The fleet, as the job sees it.

    Attributes:
        queues: the slots of each queue.
        bounds: how many requests may wait in a queue.
        floor: the bound of a queue that is not among them.
    """

    queues: Mapping[str, QueueCapacity]
    bounds: Mapping[str, int]
    floor: int


class Window:
    """Follows the fleet.

    Args:
        read: reads the fleet.
        clock: monotonic seconds.
    """

    def __init__(self, read: Callable[[], Fleet], clock: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._clock = clock
        self._fleet = Fleet({}, {}, 0)
        self._looked_at = float("-inf")

    def look(self) -> None:
        """Read the fleet, unless that was just done.

        Raises:
            BrokerUnavailable: Redis cannot be reached.
        """
        now = self._clock()
        if now - self._looked_at >= LOOK_EVERY_S:
            self._fleet = self._read()
            self._looked_at = now

    def of(self, queue: str) -> int:
        """Return how many requests of this queue may be in Redis."""
        capacity = self._fleet.queues.get(queue, QueueCapacity())
        bound = self._fleet.bounds.get(queue, self._fleet.floor)
        return max(1, min(max(LEAST, capacity.slots * PER_SLOT), int(bound * SHARE)))

    def workers(self) -> int:
        """The most live workers that any queue has."""
        return max((capacity.workers for capacity in self._fleet.queues.values()), default=0)


def reader(app: Celery) -> Callable[[], Fleet]:
    """Return a function that reads the fleet of an application."""
    client, settings = connect(app), settings_of(app)
    registry = Registry(client)

    def read() -> Fleet:
        reading = registry.read()
        with translated("reading the queues' limits"):
            limits: Any = client.hgetall(keys.LIMITS)
        bounds = {text(queue): number(json_object(limit).get("bound")) for queue, limit in limits.items()}
        return Fleet(
            snapshot_of(reading.records, reading.now - settings.dead_after_s).queues,
            {queue: int(bound) for queue, bound in bounds.items() if bound is not None},
            settings.queue_floor,
        )

    return read

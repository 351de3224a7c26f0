"""Who gives way to urgent requests, and who does not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tasks.worker.attempts.job import BATCH, Job
from tasks.worker.queues.preemption import LEAST_RUN_S, Preemption
from tasks.worker.queues.room import Room

if TYPE_CHECKING:
    from collections.abc import Sequence

QUEUE, OTHER = "tier-under-3B", "tier-3-7B"


class World:
    """A worker with so many slots, all of which are in use."""

    def __init__(self, slots: int = 4, share: float = 0.0, limits: dict[str, int] | None = None) -> None:
        self.now = 100.0
        self.room = Room(limits or {}, slots)
        self.jobs: list[Job] = []
        self.waiting = {QUEUE: 0}
        self.looks = 0
        self.queues = [QUEUE, OTHER]
        self.preemption = Preemption(
            share, lambda: self.queues, self.room, lambda: self.jobs, self.urgent, lambda: self.now
        )

    def urgent(self, queues: Sequence[str]) -> dict[str, int]:
        self.looks += 1
        return {queue: count for queue, count in self.waiting.items() if queue in queues}

    def run(self, priority: int = BATCH, queue: str = QUEUE) -> Job:
        job = Job(f"r{len(self.jobs)}", queue, priority=priority)
        attempt: Any = SimpleNamespace(claimed_at=self.now)
        job.attempt = attempt
        self.jobs.append(job)
        self.room.enter(queue, is_batch_work=job.is_batch_work)
        self.now += 1
        return job

    def preempted(self) -> list[str]:
        """Which of the jobs are told to go back to their queue."""
        self.preemption.look()
        return [job.task_id for job in self.jobs if job.reason == "requeue"]


def test_the_youngest_gives_way() -> None:
    """One slot for each urgent request, and none again while it is on its way."""
    world = World()
    for _ in range(4):
        world.run()
    assert world.preempted() == []
    world.waiting[QUEUE] = 2
    assert world.preempted() == ["r2", "r3"]
    assert world.preempted() == ["r2", "r3"]


def test_urgent_ones_stay() -> None:
    """Only batch work gives way, and only where there is any Redis is asked."""
    world = World(2)
    world.run(0)
    world.run(5)
    world.waiting[QUEUE] = 2
    assert world.preempted() == []
    assert not world.looks


def test_room() -> None:
    """Nobody gives way while there is room, or once the worker takes nothing more."""
    world = World(2)
    world.run()
    world.waiting[QUEUE] = 1
    assert world.preempted() == []
    world.run()
    world.room.close()
    assert world.preempted() == []
    world.room.reopen()
    world.queues.clear()  # the worker was told to consume none
    assert world.preempted() == []
    world.queues.append(QUEUE)
    assert world.preempted() == ["r1"]


@pytest.mark.parametrize(("share", "count"), [(0.0, 4), (0.5, 2), (0.9, 1), (1.0, 0)])
def test_the_share_that_batch_work_keeps(share: float, count: int) -> None:
    """However many urgent requests wait."""
    world = World(4, share)
    for _ in range(4):
        world.run()
    world.waiting[QUEUE] = 100
    assert len(world.preempted()) == count


def test_one_that_has_just_begun() -> None:
    """It has paid for its prompt, and keeps its slot for a moment; so batch work makes progress however many urgent ones come."""
    world = World(1)
    world.run()
    world.now = 100.0 + LEAST_RUN_S / 2
    world.waiting[QUEUE] = 1
    assert world.preempted() == []
    world.now = 100.0 + LEAST_RUN_S
    assert world.preempted() == ["r0"]


def test_another_queue() -> None:
    """Work of another queue gives way where all slots together are used up, and stays where it is in nobody's way."""
    world = World(2)
    world.run(queue=OTHER)
    world.run(queue=OTHER)
    world.waiting[QUEUE] = 1
    assert world.preempted() == ["r1"]
    world = World(4, limits={QUEUE: 1, OTHER: 2})
    world.run(queue=OTHER)
    world.run(0)
    world.waiting[QUEUE] = 1
    assert world.preempted() == []

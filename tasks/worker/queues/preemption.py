"""Preemption: batch work gives its slots to urgent requests that would wait, and goes on later from its journal."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from tasks.errors import BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from tasks.worker.attempts.job import Job
    from tasks.worker.queues.room import Room

logger = logging.getLogger(__name__)

LOOK_S = 0.1
#: A request that runs for less long keeps its slot: it has paid for its prompt, and has next to nothing for it.
LEAST_RUN_S = 0.5


class Preemption(threading.Thread):
    """Looks at the queues while batch work fills the room.

    A request that is preempted is released at a token, and goes back to the front of its list. Its next attempt goes on behind
    the last token.

    Args:
        share: of all slots, which batch work keeps however many urgent requests wait; 1 preempts nothing.
        queues: those that the worker consumes now.
        room: the slots.
        running: the jobs whose requests are in an engine.
        urgent: how many requests that are no batch work wait in each of these queues.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        share: float,
        queues: Callable[[], Sequence[str]],
        room: Room,
        running: Callable[[], Collection[Job]],
        urgent: Callable[[Sequence[str]], Mapping[str, int]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name="preemption", daemon=True)
        self._share = share
        self._queues = queues
        self._room = room
        self._running = running
        self._urgent = urgent
        self._clock = clock
        self._ending = threading.Event()

    def run(self) -> None:
        """Look until :meth:`stop`."""
        while self._share < 1 and not self._ending.wait(LOOK_S):
            try:
                self.look()
            except BrokerUnavailable as error:
                logger.debug("the queues could not be read: %s", error)
            except Exception:
                # Without this thread urgent requests wait for batch work.
                logger.exception("a look at the queues failed")

    def stop(self) -> None:
        """End the thread."""
        self._ending.set()
        if self.is_alive():
            self.join()

    def look(self) -> None:
        """Look once; Redis is asked only where batch work could give way."""
        batch = [job for job in self._running() if job.is_batch_work]
        if len(batch) <= self._floor or self._room.closed:
            return
        full = [queue for queue in self._queues() if not self._room.has_room(queue, urgent=True)]
        if not full:
            return
        for queue, waiting in self._urgent(full).items():
            for job in self._victims(batch, queue, waiting):
                logger.info("request %s gives its slot to an urgent one, and continues later", job.task_id)
                job.stop("requeue")

    @property
    def _floor(self) -> int:
        return int(self._room.total * self._share)

    def _victims(self, batch: list[Job], queue: str, waiting: int) -> list[Job]:
        """Return the jobs whose slots so many waiting requests of a queue get: the youngest first, since they lose the least."""
        old_enough = self._clock() - LEAST_RUN_S
        in_the_way = [job for job in batch if job.queue == queue or not self._is_queue_full(queue)]
        leaving = sum(job.reason is not None for job in in_the_way)
        candidates = [
            (job.attempt.claimed_at, job)
            for job in in_the_way
            if job.reason is None and job.attempt is not None and job.attempt.claimed_at <= old_enough
        ]
        staying = sum(job.reason is None for job in batch)
        most = min(waiting - leaving, staying - self._floor)
        youngest = sorted(candidates, key=lambda candidate: candidate[0], reverse=True)
        return [job for _, job in youngest[: max(0, most)]]

    def _is_queue_full(self, queue: str) -> bool:
        """Whether it is the queue's own slots that are in use, and not those of all queues together."""
        return self._room.busy().get(queue, 0) >= self._room.limits.get(queue, self._room.total)

"""One delivery of one request to this worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.journal.items import Asks
    from tasks.worker.attempts.job import Job


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that this worker has fetched, while a thread of the pool runs its request.

    Args:
        job: the request in the pool.
        tag: Celery's tag of the message.
        asks: a digest of the request in the message.
    """

    job: Job
    tag: str
    asks: Asks

    @property
    def task_id(self) -> str:
        """The request's id."""
        return self.job.task_id

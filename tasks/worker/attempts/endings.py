"""The ends of journals, for the threads that store the results of their requests."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tasks.errors import BrokerUnavailable, GenerationError
from tasks.messages.journal import End, Error
from tasks.worker.attempts.job import current_job

if TYPE_CHECKING:
    from tasks.worker.attempts.attempt import Attempt
    from tasks.worker.attempts.publisher import Publisher

logger = logging.getLogger(__name__)


class Endings:
    """Asked on the thread of a request's job, about that request.

    Args:
        publisher: writes the entries of a journal that Redis has lost.
    """

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    def last_id(self, task_id: str) -> str:
        """The id of the entry with which this worker has ended the request; empty where another one has."""
        attempt = _ended(task_id)
        return attempt.items[-1].entry_id if attempt is not None else ""

    def restore(self, task_id: str) -> bool:
        """Write the entries of the journal that Redis has lost; ``False`` if the request is another worker's now.

        Raises:
            BrokerUnavailable: Redis is away, and this worker has no time left to wait for it.
        """
        attempt = _ended(task_id)
        try:
            return attempt is None or self._publisher.restore(attempt)
        except BrokerUnavailable:
            raise
        except GenerationError:  # its readers have the result
            logger.exception("the journal of request %s cannot be written again", task_id)
            return True


def _ended(task_id: str) -> Attempt | None:
    """This thread's attempt, if it has ended the journal of the request."""
    job = current_job()
    attempt = job.attempt if job is not None and job.task_id == task_id else None
    if attempt is None or not attempt.items or not isinstance(attempt.outcome, End | Error):
        return None
    return attempt

"""Ends of requests that no worker ends any more."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from tasks.broker.inventory.purge import end_purged
from tasks.broker.queues.ledger import RESENT_MAX
from tasks.errors import GenerationError
from tasks.messages.journal import Error

if TYPE_CHECKING:
    from tasks.broker.queues.ledger import Lost
    from tasks.journal.writer import Journal
    from tasks.messages.journal import End

logger = logging.getLogger(__name__)


class FinalResults(Protocol):
    """Stored results that are final although their journal is open; see :class:`tasks.sweep.results.Results`."""

    def final_entry(self, task_id: str) -> End | Error | None:
        """The entry that the journal should end with."""

    def fail(self, task_id: str, error: Exception) -> None:
        """Make this the request's result."""

    def revoke(self, task_id: str, message: str) -> None:
        """Make it the request's result that it was revoked."""


class Ends:
    """Writes the missing part of an end: the journal's entry, or Celery's result.

    Args:
        journal: the requests' journals.
        results: the requests' Celery results.
    """

    def __init__(self, journal: Journal, results: FinalResults) -> None:
        self._journal = journal
        self._results = results

    def end_if_final(self, task_id: str) -> bool:
        """End the journal of a request that Celery has ended without the worker: revoked, expired, over its hard time limit."""
        entry = self._results.final_entry(task_id) if task_id else None
        if entry is None:
            return False
        return self._journal.end_unclaimed(task_id, entry) != "busy"

    def end_purged(self, lost: Lost) -> None:
        """End a request whose purge was interrupted."""
        end_purged(self._journal, self._results.revoke, lost.task_id, lost.message)

    def give_up(self, task_id: str) -> None:
        """Fail a request that was lost too often."""
        error = GenerationError(f"lost {RESENT_MAX} times on its way to a worker: see the workers' logs")
        entry = Error(attempt=0, code=error.code, message=str(error), retryable=error.retryable)
        if self._journal.end_unclaimed(task_id, entry) == "ended":
            self._results.fail(task_id, error)
            logger.error("sweep: request %s: %s", task_id, error)

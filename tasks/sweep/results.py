"""Reads Celery's results of requests whose journals have no end."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from celery import states

from tasks.broker.inventory import purge
from tasks.errors import GenerationError
from tasks.messages.journal import End, Error

if TYPE_CHECKING:
    from celery import Celery

logger = logging.getLogger(__name__)


class Results:
    """Reads and writes Celery results by task id.

    Args:
        app: the app whose backend has them.
    """

    def __init__(self, app: Celery) -> None:
        self._backend = app.backend

    def final_entry(self, task_id: str) -> End | Error | None:
        """Return the end that the journal should have: revoked or failed. ``None`` while the result is open.

        A success needs no entry: the journal's end is written before the result, so it is there, or the journal is lost
        and readers take the stored result.
        """
        meta = self._backend.get_task_meta(task_id, cache=False)
        if meta["status"] == states.REVOKED:
            return End(attempt=0, index=0, finish_reason="cancelled", usage={})
        if meta["status"] == states.FAILURE:
            error = meta["result"]
            if isinstance(error, GenerationError):
                return Error(attempt=0, code=error.code, message=str(error), retryable=error.retryable)
            return Error(attempt=0, code=GenerationError.code, message=f"{type(error).__name__}: {error}")
        return None

    def fail(self, task_id: str, error: Exception) -> None:
        """Store a failure, so that ``get()`` raises it."""
        self._backend.mark_as_failure(task_id, error)

    def revoke(self, task_id: str, message: str) -> None:
        """Store that a purged request was revoked."""
        purge.revoke(self._backend, task_id, message)

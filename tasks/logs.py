"""Logs in JSON, for workers and beat."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tasks.messages.encoding import to_json

if TYPE_CHECKING:
    from collections.abc import Callable


def _no_request() -> None:
    return None


def write_json(logger: logging.Logger, current_task_id: Callable[[], str | None] = _no_request) -> None:
    """Have this logger's handlers write JSON."""
    for handler in logger.handlers:
        handler.setFormatter(JsonFormatter(current_task_id))


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time``, ``level``, ``logger``, ``message``; ``task_id`` and more where a request is meant.

    Args:
        current_task_id: the id of the request that this thread runs.
    """

    def __init__(self, current_task_id: Callable[[], str | None] = _no_request) -> None:
        super().__init__()
        self._current_task_id = current_task_id

    def format(self, record: logging.LogRecord) -> str:
        """The line of this record."""
        task_id = self._current_task_id()
        values = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **({"task_id": task_id} if task_id is not None else {}),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            values["exception"] = self.formatException(record.exc_info)
        return to_json(values, default=str)

"""A worker's log: one line for each request at INFO, nothing for a token, and JSON where the settings want it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from celery import signals
from celery.exceptions import Reject

from tasks.errors import InvalidRequest, error_for
from tasks.messages.encoding import to_json
from tasks.messages.journal import End, Error, Release
from tasks.names import is_ours
from tasks.worker.attempts.job import current_job
from tasks.worker.current import active_worker
from worker_config.settings import current_settings

if TYPE_CHECKING:
    from tasks.errors import GenerationError
    from tasks.worker.attempts.attempt import Flight, Outcome

logger = logging.getLogger("tasks.requests")

#: Where Celery says that a task was received, and how it ended: twice for each request, without model and attempt.
CELERY_LINES = ("celery.worker.strategy", "celery.app.trace")
#: Where Celery says that a worker is ready, and nothing of what it serves.
CELERY_READY = "celery.apps.worker"
#: Where Celery says where Redis is, with a password also where there is none.
CELERY_CONNECTED = "celery.worker.consumer.connection"
#: Counts that are nearly always zero, and left out of a line for people then.
RARE = frozenset({"cached_tokens", "reasoning_tokens"})


def connect() -> None:
    """Have the worker's log set up as this module wants it, when Celery sets it up."""
    signals.after_setup_logger.connect(set_up)
    signals.after_setup_task_logger.connect(set_up)


def set_up(logger: logging.Logger, **_: Any) -> None:
    """Set up what Celery has just set up: leave out what is said better elsewhere, and write JSON if that is wanted."""
    for name in CELERY_LINES:
        logging.getLogger(name).addFilter(_not_of_a_generation)
    logging.getLogger(CELERY_READY).addFilter(_not_ready)
    logging.getLogger(CELERY_CONNECTED).addFilter(_true_address)
    use_json_if_wanted(logger)


def use_json_if_wanted(logger: logging.Logger) -> None:
    """Have this logger's handlers write JSON, if the settings say so."""
    if current_settings().log_json:
        for handler in logger.handlers:
            handler.setFormatter(JsonFormatter())


def ended(flight: Flight, outcome: Outcome) -> None:
    """Log how an attempt at a request ended."""
    fields: dict[str, Any] = {"model": flight.model, "attempt": flight.attempt}
    usage = {
        "prompt_tokens": flight.prompt_tokens,
        "cached_tokens": flight.cached_tokens,
        "completion_tokens": len(flight.ids),
        "reasoning_tokens": flight.reasoning_tokens,
    }
    if isinstance(outcome, End):
        how = "cancelled" if outcome.finish_reason == "cancelled" else "succeeded"
        log(flight.task_id, how, **fields, finish_reason=outcome.finish_reason, **usage, **outcome.timing)
    elif isinstance(outcome, Error):
        log(flight.task_id, "failed", **fields, code=outcome.code, error=outcome.message, **usage, **flight.timing())
    else:
        how = "crashed" if isinstance(outcome, Release) and outcome.crashed else "released"
        log(flight.task_id, how, **fields, **usage, **flight.timing())


def refused(task_id: str, error: GenerationError) -> None:
    """Log a request that cannot be run."""
    log(task_id, "failed", code=error.code, error=str(error))


def log(task_id: str, outcome: str, **fields: Any) -> None:
    """Log one line about a request: at WARNING if it failed and its producer could not have known, else at INFO."""
    kind = error_for(str(fields.get("code", "")))
    if kind is InvalidRequest:
        # Its message quotes what the producer sent, which may be a part of a prompt.
        fields.pop("error", None)
    level = logging.WARNING if outcome == "failed" and not issubclass(kind, InvalidRequest) else logging.INFO
    known = {name: value for name, value in fields.items() if value is not None}
    said = " ".join(f"{name}={_said(value)}" for name, value in known.items() if value != 0 or name not in RARE)
    logger.log(
        level,
        "request %s %s: %s",
        task_id,
        outcome,
        said,
        extra={"fields": {"task_id": task_id, "outcome": outcome, **known}},
    )


def _said(value: Any) -> str:
    """A value for people: milliseconds without thousandths, texts with spaces in quotes."""
    if isinstance(value, float):
        return f"{value:.0f}" if value >= 10 else f"{value:.1f}"
    return repr(value) if " " in str(value) else str(value)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time``, ``level``, ``logger``, ``message``; ``task_id`` and more where a request is meant."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of this record."""
        job = current_job()
        values = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **({"task_id": job.task_id} if job is not None else {}),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            values["exception"] = self.formatException(record.exc_info)
        return to_json(values, default=str)


def _not_of_a_generation(record: logging.LogRecord) -> bool:
    """Whether a line of Celery's is to be written: all but those about an ordinary end of a generation, unless DEBUG is wanted.

    A request that is given back is an ordinary end, which Celery warns of with a traceback.
    """
    about = record.args if isinstance(record.args, dict) else {}
    given_back = record.exc_info is not None and isinstance(record.exc_info[1], Reject)
    ordinary = record.levelno == logging.INFO or given_back
    return not ordinary or not is_ours(about.get("name")) or logging.root.isEnabledFor(logging.DEBUG)


def _not_ready(record: logging.LogRecord) -> bool:
    """Whether this is another line than ``%s ready.``, in whose place :mod:`tasks.worker.celery.ready_line` has its own.

    A worker of another application, which has no engines, keeps Celery's.
    """
    return record.msg != "%s ready." or active_worker() is None


def _true_address(record: logging.LogRecord) -> bool:
    """Have a line that names Redis show a password only where there is one; all lines are written."""
    if record.msg == "Connected to %s" and not urlsplit(current_settings().redis_url).password:
        record.args = tuple(str(value).replace(":**@", "") for value in record.args or ())
    return True

"""A worker's log: one line for each request at INFO, and nothing for a token."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from celery import signals
from celery.exceptions import Reject

from tasks.logs import write_json
from tasks.names import is_ours
from tasks.worker.attempts.job import current_job
from tasks.worker.current import active_worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker_config.settings import Settings

logger = logging.getLogger("tasks.requests")

#: Where Celery says that a task was received, and how it ended: twice for each request, without model and attempt.
CELERY_LINES = ("celery.worker.strategy", "celery.app.trace")
#: The logger of Celery's line that a worker is ready, which does not name its models.
CELERY_READY = "celery.apps.worker"
#: Where Celery says where Redis is, with a password also where there is none.
CELERY_CONNECTED = "celery.worker.consumer.connection"
#: Where Celery says that a monitor has asked for events, with a literal ``{task}`` in it.
CELERY_CONTROL = "celery.worker.control"
#: Where kombu says, with a traceback each second, that Redis takes no write. The heartbeat's warning says it in one line.
KOMBU_REDIS = "kombu.transport.redis"


def connect(settings: Settings) -> None:
    """Have the worker's log set up as this module wants it, when Celery sets it up."""

    def celery_has_set_up(logger: logging.Logger, **_: Any) -> None:
        set_up(logger, settings)

    for signal in (signals.after_setup_logger, signals.after_setup_task_logger):
        signal.connect(celery_has_set_up, weak=False)


def set_up(logger: logging.Logger, settings: Settings) -> None:
    """Change the logging that Celery has just set up: leave out lines that others replace, and write JSON if that is wanted."""
    for name in CELERY_LINES:
        logging.getLogger(name).addFilter(not_of_a_generation)
    logging.getLogger(CELERY_READY).addFilter(_not_ready)
    logging.getLogger(CELERY_CONTROL).addFilter(not_of_events)
    logging.getLogger(KOMBU_REDIS).addFilter(not_of_bindings)
    if not urlsplit(settings.redis_url).password:
        logging.getLogger(CELERY_CONNECTED).addFilter(_without_stars)
    if settings.log_json:
        write_json(logger, current_task_id)


def current_task_id() -> str | None:
    """The request that this thread of the pool runs."""
    job = current_job()
    return job.task_id if job is not None else None


def not_of_a_generation(record: logging.LogRecord) -> bool:
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


def at_debug(beginning: str) -> Callable[[logging.LogRecord], bool]:
    """Return a filter that leaves out the lines that begin so, unless DEBUG is wanted."""

    def keeps(record: logging.LogRecord) -> bool:
        return not str(record.msg).startswith(beginning) or logging.root.isEnabledFor(logging.DEBUG)

    return keeps


#: A Flower comes or goes.
not_of_events = at_debug("Events of group ")
#: A binding could not be written.
not_of_bindings = at_debug("maybe_refresh_binding_expiry:")


def _without_stars(record: logging.LogRecord) -> bool:
    """Have a line that names Redis show no password, since there is none; all lines are written."""
    if record.msg == "Connected to %s":
        record.args = tuple(str(value).replace(":**@", "") for value in record.args or ())
    return True

"""The log of a worker: as JSON where that is wanted, and without the lines of Celery that say less than ours."""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Any

from tasks.logs import JsonFormatter
from tasks.names import GENERATE
from tasks.worker.attempts.job import Job, set_current_job
from tasks.worker.celery import logs
from worker_config.settings import Settings

if TYPE_CHECKING:
    import pytest


def record(message: str, *args: Any, level: int = logging.INFO, exc_info: Any = None) -> logging.LogRecord:
    return logging.LogRecord("x", level, "x.py", 1, message, args, exc_info)


def test_json_is_one_line_with_the_request_and_the_traceback() -> None:
    """Whatever is logged on a request's thread has its id; line breaks are inside strings."""
    formatter = JsonFormatter(logs.current_task_id)
    try:
        int("a\nb \ud800")
    except ValueError:
        failed = record("it %s", "failed", level=logging.ERROR, exc_info=sys.exc_info())
    set_current_job(Job("t1", "q"))
    try:
        text = formatter.format(failed)
    finally:
        set_current_job(None)
    said = json.loads(text)
    assert "\n" not in text
    text.encode("ascii")
    assert (said["level"], said["message"], said["task_id"]) == ("ERROR", "it failed", "t1")
    assert "ValueError: invalid literal" in said["exception"]
    assert said["time"].endswith("+00:00")
    assert "task_id" not in json.loads(formatter.format(record("nothing runs")))


def test_json_only_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handlers that Celery has made keep their format without the setting."""
    handler = logging.StreamHandler()
    logger = logging.getLogger("tests.of-json")
    monkeypatch.setattr(logger, "handlers", [handler])
    for name in (*logs.CELERY_LINES, logs.CELERY_READY, logs.CELERY_CONNECTED, logs.CELERY_CONTROL, logs.KOMBU_REDIS):
        monkeypatch.setattr(logging.getLogger(name), "filters", [])
    logs.set_up(logger, Settings())
    assert handler.formatter is None
    logs.set_up(logger, Settings(log_json=True))
    assert isinstance(handler.formatter, JsonFormatter)


def test_celerys_two_lines_for_a_generation_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """At INFO, unless DEBUG is wanted; those of other tasks and its warnings stay."""
    keeps = logs.not_of_a_generation
    monkeypatch.setattr(logging.root, "level", logging.INFO)
    logging.root.manager._clear_cache()  # type: ignore[attr-defined]
    assert not keeps(record("Task %(name)s received", {"name": GENERATE}))
    assert keeps(record("Task %(name)s received", {"name": "other"}))
    assert keeps(record("Task %(name)s failed", {"name": GENERATE}, level=logging.ERROR))
    assert keeps(record("no mapping %s", "x"))
    assert not logs.not_of_events(record("Events of group {task} enabled by remote."))
    assert not logs.not_of_bindings(
        record("maybe_refresh_binding_expiry: Redis error, will retry", level=logging.WARNING)
    )
    assert logs.not_of_bindings(record("maybe_restore_messages: connection error, will retry on next cycle"))
    assert logs.not_of_events(record("New rate limit for tasks of type %s: %s.", "x", "1"))
    monkeypatch.setattr(logging.root, "level", logging.DEBUG)
    logging.root.manager._clear_cache()  # type: ignore[attr-defined]
    assert keeps(record("Task %(name)s received", {"name": GENERATE}))

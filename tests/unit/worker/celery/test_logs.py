"""The line about a request: how each way to end is told, at which level, and as JSON."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from tasks.errors import InvalidRequest, UnknownModel
from tasks.journal.writer import ClaimAnswer
from tasks.messages.journal import Release
from tasks.names import GENERATE
from tasks.worker.attempts.attempt import Fenced, Flight, Outcome
from tasks.worker.attempts.job import Job, set_current_job
from tasks.worker.celery import logs
from worker_config.settings import Settings


@pytest.fixture
def flight() -> Flight:
    claim = ClaimAnswer(
        kind="claimed", attempt=2, crashes=0, entries=[], items=[], owner="me", nonce="n", queued_ms=3.5
    )
    return Flight("t1", claim, "m")


def line(caplog: pytest.LogCaptureFixture) -> tuple[str, str, dict[str, Any]]:
    """Level, message and fields of the one line that was written."""
    (record,) = caplog.records
    return record.levelname, record.getMessage(), record.__dict__["fields"]


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (Release(attempt=2, crashed=False), "released"),
        (Release(attempt=2, crashed=True), "crashed"),
        (Fenced(), "released"),
    ],
)
def test_an_attempt_that_is_not_the_end(
    flight: Flight, outcome: Outcome, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Given back, lost with its engine, or run by somebody else: the request goes on elsewhere."""
    caplog.set_level(logging.INFO, "tasks.requests")
    logs.ended(flight, outcome)
    level, message, fields = line(caplog)
    assert level == "INFO"
    assert message.startswith(f"request t1 {told}: model=m attempt=2 ")
    assert (fields["task_id"], fields["outcome"], fields["queued_ms"]) == ("t1", told, 3.5)


def test_an_end_has_its_reason(flight: Flight, caplog: pytest.LogCaptureFixture) -> None:
    """A cancel is no success."""
    caplog.set_level(logging.INFO, "tasks.requests")
    logs.ended(flight, flight.end("cancelled"))
    assert line(caplog)[1].startswith("request t1 cancelled: model=m attempt=2 finish_reason=cancelled ")


def test_a_failure_of_ours_is_a_warning(flight: Flight, caplog: pytest.LogCaptureFixture) -> None:
    """It shows at Celery's default level, with what happened."""
    logs.ended(flight, flight.error("out_of_memory", "there is no room"))
    level, message, _ = line(caplog)
    assert level == "WARNING"
    assert "code=out_of_memory error='there is no room'" in message


def test_a_mistake_of_the_producers_is_none(caplog: pytest.LogCaptureFixture) -> None:
    """And what it sent is not quoted: it may be a part of a prompt. A model's name is none."""
    caplog.set_level(logging.INFO, "tasks.requests")
    logs.refused("t1", InvalidRequest("prompt=['secret']: input should be a valid string"))
    level, message, _ = line(caplog)
    assert (level, message) == ("INFO", "request t1 failed: code=invalid_request")
    caplog.clear()
    logs.refused("t1", UnknownModel("no model 'x'"))
    assert line(caplog)[:2] == ("INFO", "request t1 failed: code=model_not_found error=\"no model 'x'\"")


def record(message: str, *args: Any, level: int = logging.INFO, exc_info: Any = None) -> logging.LogRecord:
    return logging.LogRecord("x", level, "x.py", 1, message, args, exc_info)


def test_json_is_one_line_with_the_request_and_the_traceback() -> None:
    """Whatever is logged on a request's thread has its id; line breaks are inside strings."""
    formatter = logs.JsonFormatter()
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
    logs.use_json_if_wanted(logger)
    assert handler.formatter is None
    monkeypatch.setattr(logs, "current_settings", lambda: Settings(log_json=True))
    logs.use_json_if_wanted(logger)
    assert isinstance(handler.formatter, logs.JsonFormatter)


def test_celerys_two_lines_for_a_generation_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """At INFO, unless DEBUG is wanted; those of other tasks and its warnings stay."""
    keeps = logs._not_of_a_generation
    monkeypatch.setattr(logging.root, "level", logging.INFO)
    logging.root.manager._clear_cache()  # type: ignore[attr-defined]
    assert not keeps(record("Task %(name)s received", {"name": GENERATE}))
    assert keeps(record("Task %(name)s received", {"name": "other"}))
    assert keeps(record("Task %(name)s failed", {"name": GENERATE}, level=logging.ERROR))
    assert keeps(record("no mapping %s", "x"))
    monkeypatch.setattr(logging.root, "level", logging.DEBUG)
    logging.root.manager._clear_cache()  # type: ignore[attr-defined]
    assert keeps(record("Task %(name)s received", {"name": GENERATE}))

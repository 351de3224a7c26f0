"""The line about a request: how the ways to end are told, and at which level."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from tasks.errors import InvalidRequest, UnknownModel
from tasks.journal.claim_answer import ClaimAnswer
from tasks.messages.journal import Release
from tasks.worker.attempts import log
from tasks.worker.attempts.attempt import Attempt, Fenced, Outcome


@pytest.fixture
def attempt() -> Attempt:
    claim = ClaimAnswer(
        kind="claimed", attempt=2, crashes=0, entries=[], items=[], owner="me", nonce="n", queued_ms=3.5
    )
    return Attempt("t1", claim, "m")


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
    attempt: Attempt, outcome: Outcome, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Given back, lost with its engine, or run by somebody else: the request goes on elsewhere."""
    caplog.set_level(logging.INFO, "tasks.requests")
    log.ended(attempt, outcome)
    level, message, fields = line(caplog)
    assert level == "INFO"
    assert message.startswith(f"request t1 {told}: model=m attempt=2 ")
    assert (fields["task_id"], fields["outcome"], fields["queued_ms"]) == ("t1", told, 3.5)


def test_an_end_has_its_reason(attempt: Attempt, caplog: pytest.LogCaptureFixture) -> None:
    """A cancel is no success."""
    caplog.set_level(logging.INFO, "tasks.requests")
    log.ended(attempt, attempt.end("cancelled"))
    assert line(caplog)[1].startswith("request t1 cancelled: model=m attempt=2 finish_reason=cancelled ")


def test_a_failure_of_ours_is_a_warning(attempt: Attempt, caplog: pytest.LogCaptureFixture) -> None:
    """It shows at Celery's default level, with what happened."""
    log.ended(attempt, attempt.error("out_of_memory", "there is no room"))
    level, message, _ = line(caplog)
    assert level == "WARNING"
    assert "code=out_of_memory error='there is no room'" in message


def test_a_mistake_of_the_producers_is_none(caplog: pytest.LogCaptureFixture) -> None:
    """And what it sent is not quoted: it may be a part of a prompt. A model's name is none."""
    caplog.set_level(logging.INFO, "tasks.requests")
    log.refused("t1", InvalidRequest("prompt=['secret']: input should be a valid string"))
    level, message, _ = line(caplog)
    assert (level, message) == ("INFO", "request t1 failed: code=invalid_request")
    caplog.clear()
    log.refused("t1", UnknownModel("no model 'x'"))
    assert line(caplog)[:2] == ("INFO", "request t1 failed: code=model_not_found error=\"no model 'x'\"")

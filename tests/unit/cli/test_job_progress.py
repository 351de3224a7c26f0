"""What is shown of a bulk job, in every width."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tasks.bulk.finished import Finished
from tasks.bulk.line import BadLine, Line
from tasks.bulk.record import JobRecord
from tasks.cli.job_progress import Failures, Progress, Speed, bar, screen_lines, summary
from tasks.cli.overview.words import width
from tasks.client.answers.answer import Answer
from tasks.errors import InvalidRequest, UnknownModel

HALF = Progress(done=50_000, total=100_000, failed=12, tokens_per_s=3210.0, left_s=700.0, workers=3, in_flight=192)


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_it_fits(columns: int) -> None:
    """Two lines, none wider than the terminal; at 80 columns nothing is cut."""
    lines = screen_lines(HALF, columns)
    assert len(lines) == 2
    assert all(width(line) <= columns for line in lines)
    if columns >= 80:
        assert lines == [
            "━━━━━━━━━━━━╌╌╌╌╌╌╌╌╌╌╌╌ 50,000 of 100,000 (50%)",
            "12 failed · 3.2k tokens/s · 12m left · 3 workers · 192 in flight",
        ]


def test_without_a_total() -> None:
    """A pipe has no total, no bar and no time that is left; a fleet without workers is said."""
    found = Progress(done=7, total=0, failed=0, tokens_per_s=0.0, left_s=None, workers=0, in_flight=16)
    assert bar(found) == ""
    assert screen_lines(found, 80) == [
        "7 done",
        "0 failed · 0 tokens/s · time left unknown · no worker is up · 16 in flight",
    ]


def test_speed() -> None:
    """Speeds are those of the last half minute."""
    now = [0.0]
    record = JobRecord(job_id="a", total=100)
    job: Any = SimpleNamespace(record=record, workers=1, in_flight=4)
    speed = Speed(job, lambda: now[0])
    assert speed.look().left_s is None
    now[0], record.done, record.completion_tokens = 10.0, 20, 400
    found = speed.look()
    assert (found.tokens_per_s, found.left_s) == (40.0, 40.0)
    now[0] = 40.0
    assert speed.look().tokens_per_s == 0.0


def test_summary() -> None:
    """The last line has the status, the counts and the usage."""
    record = JobRecord(job_id="a", status="completed", done=3, failed=1, prompt_tokens=10, completion_tokens=1200)
    assert summary(record, 75.0) == ("completed: 2 answered, 1 failed; 10 prompt and 1,200 completion tokens; 1m")


def test_why_lines_failed() -> None:
    """The most frequent reasons, each with its first line; a message moves no cursor."""
    failures = Failures()
    missing = UnknownModel("model 'x' is not\x1b[2J known")
    failures.note([Finished(Line(n, f"row-{n}", "plain", {}), "bulk-0-1", error=missing) for n in (1, 2)])
    wrong = InvalidRequest("line 3: not JSON")
    failures.note([Finished(BadLine(3, None, "plain", wrong), "", error=wrong)])
    failures.note([Finished(Line(4, "row-4", "plain", {}), "bulk-0-4", answer=Answer({}))])
    assert failures.lines() == [
        "2 model_not_found, as row-1: model 'x' is not\N{REPLACEMENT CHARACTER}[2J known",
        "1 invalid_request, as line 3: not JSON",
    ]

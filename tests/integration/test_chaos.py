"""``python -m benchmarks.chaos`` notices what it is there to notice."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid

import pytest

from tests.support import MARK, ROOT, assert_gone

pytestmark = pytest.mark.timeout(500)
SMALL = ["--requests", "24", "--readers", "12", "--workers", "1", "--slots", "6", "--end-s", "20"]


def chaos(*options: str) -> tuple[int, dict[str, int], str]:
    """The exit status of a small run, its counts by verdict, and all that it says."""
    mark = uuid.uuid4().hex
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.chaos", *SMALL, *options],
        cwd=ROOT,
        env={**os.environ, MARK: mark, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
        start_new_session=True,
    )
    assert_gone(mark)
    counts = {verdict: int(count) for count, verdict in re.findall(r"(\d+) (lost|repeated|wrong|hung)", done.stdout)}
    assert set(counts) == {"lost", "repeated", "wrong", "hung"}, done.stdout + done.stderr
    print(done.stdout)
    return done.returncode, counts, done.stdout


def test_sabotage_is_noticed() -> None:
    """A token taken out of a journal, a request out of the queue, and a changed answer: each is told of its request."""
    kinds = {"token": {"lost", "hung"}, "request": {"lost", "hung"}, "result": {"wrong"}}
    status, _, said = chaos("--faults", "0", *(word for kind in kinds for word in ("--sabotage", kind)))
    assert status == 1
    damaged = dict(re.findall(r"^sabotage of a (\w+): (\S+)$", said, re.MULTILINE))
    assert set(damaged) == set(kinds)
    verdicts = dict(re.findall(r"^request \d+ \(\w+, (\S+)\): (\w+): ", said, re.MULTILINE))
    assert {kind: verdicts.get(task_id) in kinds[kind] for kind, task_id in damaged.items()} == dict.fromkeys(
        kinds, True
    )


def test_without_faults_nothing_is_wrong() -> None:
    """The same load undisturbed ends well, in each way of reading."""
    status, counts, _ = chaos("--faults", "0", "--end-s", "120")
    assert (status, counts) == (0, {"lost": 0, "repeated": 0, "wrong": 0, "hung": 0})

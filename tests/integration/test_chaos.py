"""``python -m benchmarks.chaos`` notices what it is there to notice."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import uuid

import pytest

from tests.support import MARK, ROOT, assert_gone

SMALL = ["--requests", "24", "--readers", "12", "--workers", "1", "--slots", "6", "--end-s", "20"]


def chaos(*options: str) -> tuple[int, dict[str, int]]:
    """The exit status of a small run, and its counts by verdict."""
    mark = uuid.uuid4().hex
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.chaos", *SMALL, *options],
        cwd=ROOT,
        env={**os.environ, MARK: mark, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        start_new_session=True,
    )
    assert_gone(mark, timeout_s=20)
    counts = {verdict: int(count) for count, verdict in re.findall(r"(\d+) (lost|repeated|wrong|hung)", done.stdout)}
    assert set(counts) == {"lost", "repeated", "wrong", "hung"}, done.stdout + done.stderr
    print(done.stdout)
    return done.returncode, counts


@pytest.mark.parametrize(
    ("kind", "verdicts"),
    [("token", {"lost", "hung"}), ("request", {"lost", "hung"}), ("result", {"wrong"})],
)
def test_sabotage_is_noticed(kind: str, verdicts: set[str]) -> None:
    """A token taken out of a journal, a request out of the queue, or a changed answer fails the run."""
    status, counts = chaos("--faults", "0", "--sabotage", kind)
    assert status == 1
    assert {verdict for verdict, count in counts.items() if count} & verdicts


def test_without_faults_nothing_is_wrong() -> None:
    """The same load undisturbed ends well, in each way of reading."""
    assert chaos("--faults", "0") == (0, {"lost": 0, "repeated": 0, "wrong": 0, "hung": 0})

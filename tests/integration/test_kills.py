"""The small version of ``python -m benchmarks.chaos.kills``."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid

import pytest

from tests.support import MARK, ROOT, assert_gone


@pytest.mark.timeout(700)
def test_a_worker_that_is_killed_while_it_takes_requests_loses_none() -> None:
    """After each of several kill -9 at random moments every request has its one answer."""
    mark = uuid.uuid4().hex
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.chaos.kills", "--kills", "6"],
        cwd=ROOT,
        env={**os.environ, MARK: mark},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        start_new_session=True,
    )
    assert_gone(mark)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ": 0 lost" in done.stdout

"""The limit of open files."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, tuple(json.loads(sys.argv[1])))
from worker_config.open_files import allow_open_files
allow_open_files(2000)
print(json.dumps(resource.getrlimit(resource.RLIMIT_NOFILE)))
"""


@pytest.mark.parametrize(
    ("before", "after"), [((256, 3000), (2000, 3000)), ((256, 1024), (1024, 1024)), ((2500, 3000), (2500, 3000))]
)
def test_the_limit_is_raised(before: tuple[int, int], after: tuple[int, int]) -> None:
    """As far as it may be, and never lowered; the highest that may be set stays."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(before)], capture_output=True, text=True, check=True, timeout=60
    )
    assert tuple(json.loads(done.stdout)) == after

"""What an import of mlx-lm does to the process."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, tuple(json.loads(sys.argv[1])))
from tasks.engine.library import import_mlx_lm
import_mlx_lm()
assert "mlx_lm.utils" in sys.modules
print(json.dumps(resource.getrlimit(resource.RLIMIT_NOFILE)))
"""


@pytest.mark.parametrize(("before", "after"), [((256, 1024), (1024, 1024)), ((3000, 3500), (3000, 3500))])
def test_the_limit_of_open_files(before: tuple[int, int], after: tuple[int, int]) -> None:
    """It is raised as far as it may be, and never lowered; a limit that is lower than mlx-lm wants is no error."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(before)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout, done.stderr
    assert tuple(json.loads(done.stdout)) == after

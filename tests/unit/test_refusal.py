"""A command that refuses to start ends with its status, whatever becomes of its line."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = "import sys; {before}; from tasks.errors import refuse; refuse(78, 'no', 'A setting is wrong')"


@pytest.mark.parametrize("before", ["pass", "sys.__stderr__.close()", "import os; os.close(2)"])
def test_its_status(before: str) -> None:
    """A closed standard error does not turn the status into another one."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(before=before)], stderr=subprocess.DEVNULL, timeout=60, check=False
    )
    assert done.returncode == 78

"""A command that refuses to start ends with its status, whatever becomes of its line."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = "import sys; {before}; from tasks.errors import refuse; refuse(78, 'no', 'A setting is wrong')"


@pytest.mark.parametrize("before", ["pass", "sys.__stderr__.close()", "import os; os.close(2)"])
def test_its_status(before: str) -> None:
    """A closed standard error does not turn the status into another one."""
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(before=before)],
        env=buffered,
        stderr=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    assert done.returncode == 78

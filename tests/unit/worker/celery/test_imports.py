"""A worker has imported what its requests need before the first of them comes."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys
from tasks.celery import app
from tasks.worker.celery.lifecycle import prepare
prepare(app)
before = set(sys.modules)
from tasks.worker.celery import body
sys.exit(" ".join(set(sys.modules) - before) or 0)
"""


def test_the_body_of_the_tasks_is_imported_at_the_start() -> None:
    """Nothing of it is looked for on the disk later, when the package may be in the middle of an upgrade."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], stderr=subprocess.PIPE, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")

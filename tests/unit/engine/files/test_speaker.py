"""When a process that fetches a model has to end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from tasks.engine.files.speaker import Speaker
from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path

#: What the first report finds; it ends the program before the hub is asked.
PROGRAM = """
import sys
from tasks.engine.files.download import fetch
def report(_fraction, about):
    print(about, "huggingface_hub.hf_api" in sys.modules)
    raise SystemExit
fetch("owner/model", None, report)
"""


def test_the_hub_is_silent_from_the_first_report_on() -> None:
    """The time before, in which a busy machine imports the hub's client, counts against the whole time alone."""
    speaker = Speaker("model m", timeout_s=3600.0, stall_s=60.0)
    started = time.monotonic()
    assert speaker.trouble(started + 1800) == ""
    speaker.report(None, "asking the hub for m")
    assert speaker.trouble(started + 30) == ""
    assert "came from the hub for 60 s" in speaker.trouble(started + 1800)
    speaker.report(None, "waiting for another process that fetches m")
    assert speaker.trouble(started + 1800) == ""
    assert "was not fetched within 3600 s" in speaker.trouble(started + 3700)


def test_the_client_is_there_before_the_first_report(tmp_path: Path) -> None:
    """Its import is not the hub's silence."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env={**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout == "asking the hub for owner/model True\n", done.stderr

"""Commands that refuse to start: their exit status, their one line, and its entry in docs/troubleshooting.md."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from tests.support import ROOT

EX_UNAVAILABLE = 69
EX_CONFIG = 78


def entries() -> dict[str, str]:
    """The entries of the page about trouble, by the anchors of their headings; white space and marks of quotes are gone."""
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    parts = [part.partition("\n") for part in re.split(r"^##+ ", page, flags=re.MULTILINE)]
    return {
        re.sub(r"\W+", "-", heading.lower()).strip("-"): " ".join(text.replace("\n>", "\n").split())
        for heading, _, text in parts
    }


def start(*args: str, **env: str) -> tuple[int, str]:
    """The exit status of a worker that is to be refused, and the line that says why, less the entry that it points to."""
    return refused("worker", "-n", "refused@here", *args, **env)


def refused(*args: str, **env: str) -> tuple[int, str]:
    """The same of any command."""
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "tasks", *args],
        cwd=ROOT,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        start_new_session=True,
    )
    said = done.stdout + done.stderr
    assert "Traceback" not in said, said
    lines = [line for line in said.splitlines() if line.startswith("celery-mlx: ")]
    assert len(lines) == 1, said
    assert said.rstrip().endswith(lines[0]), said
    message, _, anchor = lines[0].removeprefix("celery-mlx: ").rpartition(" (docs/troubleshooting.md#")
    assert anchor.removesuffix(")") in entries(), said
    return done.returncode, message


def explained(anchor: str, words: str) -> bool:
    """Whether an entry of the page about trouble quotes these words."""
    return words in entries()[anchor]

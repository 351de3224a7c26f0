"""The commands to type after the demo."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.names import COMMAND

if TYPE_CHECKING:
    from collections.abc import Iterator


def next_steps() -> Iterator[str]:
    """Return lines of commands, each with its effect."""
    steps = {
        f"{COMMAND} up": "a whole fleet here, until Ctrl-C",
        f'{COMMAND} ask "Why is the sky blue?"': "a request, from a second terminal",
        f"{COMMAND} fleet": "who is up, what runs, what waits",
    }
    if shutil.which("celery") is None:
        steps = {f". {_environment()}/bin/activate": "once in each terminal", **steps}
    width = max(map(len, steps))
    yield "Everything is stopped again. For one that stays:"
    yield from (f"  {command:<{width}}  {about}" for command, about in steps.items())
    yield "From Python: from celery_mlx import generate. Next page: docs/start.md"


def _environment() -> Path:
    """The virtual environment, as it is typed here."""
    prefix = Path(sys.prefix)
    return prefix.relative_to(Path.cwd()) if prefix.is_relative_to(Path.cwd()) else prefix

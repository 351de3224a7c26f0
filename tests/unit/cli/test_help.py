"""What the commands say of themselves."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from typing import TYPE_CHECKING

import click

import celery_mlx_commands
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAMES = [name for name, value in vars(celery_mlx_commands).items() if isinstance(value, click.Command)]
#: What a list of commands has beside their names on a terminal of 80 columns.
COLUMNS = 60


def commands() -> Iterator[tuple[str, click.Command]]:
    """Every command and sub-command, with its name."""
    for name in NAMES:
        command = getattr(import_module(f"tasks.cli.{name}"), name)
        yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {below}", found) for below, found in command.commands.items())


def test_a_list_of_commands_cuts_no_description() -> None:
    """Celery's list and those of the groups show a whole sentence for each command, at 80 columns too."""
    assert len(NAMES) > 9
    cut = [name for name, command in commands() if command.get_short_help_str(COLUMNS).endswith("...")]
    assert cut == []


def test_standard_streams_that_are_closed(tmp_path: Path) -> None:
    """A supervisor may start commands without any: Celery logs, and what is started has all three."""
    program = """
import subprocess, sys
assert sys.stdin is sys.stdout is sys.stderr is None
import celery_mlx_commands
from celery import Celery
Celery("x").log.setup(loglevel="INFO")
started = "import os, sys; print(len([os.fstat(fd) for fd in range(3)]), file=open(sys.argv[1], 'w'))"
subprocess.run([sys.executable, "-c", started, sys.argv[1]], check=True)
"""
    said = tmp_path / "said"
    closed = ["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
    done = subprocess.run([*closed, sys.executable, "-c", program, str(said)], cwd=ROOT, check=False, timeout=60)
    assert done.returncode == 0
    assert said.read_text() == "3\n"


def test_every_option_is_explained() -> None:
    """An option without a sentence is a riddle."""
    options = [
        (name, option)
        for name, command in commands()
        for option in command.params
        if isinstance(option, click.Option) and option.name != "help"
    ]
    assert len(options) > 30
    assert [(name, option.name) for name, option in options if not option.help] == []

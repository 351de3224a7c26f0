"""What the commands say of themselves."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import click

import celery_mlx_commands

if TYPE_CHECKING:
    from collections.abc import Iterator

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

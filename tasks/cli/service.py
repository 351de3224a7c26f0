"""``celery -A tasks service``: a launchd or systemd service for a worker and what stands beside it."""

from __future__ import annotations

import pwd
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tasks.cli.services import launchd, systemd
from tasks.cli.services.program import ROLES, Program, environment_lines
from worker_config.settings import current_settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from tasks.cli.services.program import Role

KINDS: dict[str, ModuleType] = {"launchd": launchd, "systemd": systemd}
ENVIRONMENT = ".config/celery-mlx/environment"


@click.group()
def service(**_: Any) -> None:
    """Run a part of the fleet as a service."""


def _described(command: Callable[..., None]) -> Callable[..., None]:
    """The arguments that both sub-commands take."""
    for decorate in reversed(
        (
            click.argument("role", type=click.Choice(ROLES), default="worker"),
            click.argument("options", nargs=-1, type=click.UNPROCESSED),
            click.option(
                "--kind", type=click.Choice(list(KINDS)), default=_native(), show_default=True, help="Service manager."
            ),
            click.option(
                "--system",
                "user",
                default="",
                metavar="USER",
                help="Start it with the machine, as this user. Without it, it is yours and starts when you log in.",
            ),
        )
    ):
        command = decorate(command)
    return command


def _native() -> str:
    return "launchd" if sys.platform == "darwin" else "systemd"


@service.command("print")
@_described
def print_(role: Role, options: tuple[str, ...], kind: str, user: str, **_: Any) -> None:
    """Print the service file of a part.

    Options for the part follow after --, as in: service print worker -- -Q tier-7-13B
    """
    click.echo(KINDS[kind].text(_program(role, options, user)), nl=False)


@service.command()
@_described
@click.option("--force", is_flag=True, help="Replace an existing service file.")
def install(role: Role, options: tuple[str, ...], kind: str, user: str, force: bool, **_: Any) -> None:
    """Write the service file of a part.

    It also writes an environment file with the settings, unless there is one, and prints how to start the service.
    Options for the part follow after --, as in: service install worker -- -Q tier-7-13B
    """
    program = _program(role, options, user)
    maker = KINDS[kind]
    target: Path = maker.path(program)
    if target.exists() and not force:
        raise click.ClickException(f"{target} is there already: --force writes over it")
    try:
        if not program.environment.exists():
            lines = environment_lines(current_settings())
            _write(program.environment, "\n".join(lines) + "\n", mode=0o600, owner=user)
        for folder in maker.folders(program):
            _make_folder(folder, owner=user)
        _write(target, maker.text(program), mode=0o644)
    except OSError as error:
        hint = "; --system needs sudo" if user and isinstance(error, PermissionError) else ""
        raise click.ClickException(f"{error.filename}: {error.strerror}{hint}") from error
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"settings: {program.environment}\nservice:  {target}\nnow:")
    for line in maker.next_steps(program):
        click.echo(f"  {line}")


def _program(role: Role, options: tuple[str, ...], user: str) -> Program:
    try:
        home = Path(pwd.getpwnam(user).pw_dir) if user else Path.home()
    except KeyError as error:
        raise click.UsageError(f"--system {user}: there is no such user on this machine") from error
    return Program(role, options, home / ENVIRONMENT, current_settings().drain_timeout_s, user, home)


def _write(path: Path, text: str, *, mode: int, owner: str = "") -> None:
    """Write a file, never readable by more than its mode says; it and new folders are its owner's."""
    _make_folder(path.parent, owner=owner)
    path.touch(mode=mode)
    path.chmod(mode)
    path.write_text(text, encoding="utf-8")
    if owner:
        shutil.chown(path, owner)


def _make_folder(path: Path, *, owner: str = "") -> None:
    if not path.exists():
        _make_folder(path.parent, owner=owner)
        path.mkdir()
        if owner:
            shutil.chown(path, owner)

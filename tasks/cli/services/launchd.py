"""A launchd property list."""

from __future__ import annotations

import plistlib
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tasks.cli.services.program import Program

#: launchd gives a service 256 open files, sockets included: too few for Flower with many browsers, or a worker of 60 slots.
#: It is macOS's OPEN_MAX, the most that a process may ask for. The list's own SoftResourceLimits would, in a daemon, set
#: the limit of the whole system as well.
OPEN_FILES = 10_240


def path(program: Program) -> Path:
    """Return the path of the list: a daemon starts with the Mac, an agent when its user logs in."""
    folder = Path("/Library/LaunchDaemons") if program.user else program.home / "Library/LaunchAgents"
    return folder / f"{name(program)}.plist"


def name(program: Program) -> str:
    """The service's label."""
    return f"org.celery-mlx.{program.role}"


def state_folder(program: Program) -> Path:
    """Return the folder in which the service runs and keeps its files."""
    return program.home / "Library/Application Support/celery-mlx"


def log(program: Program) -> Path:
    """Return the path of the log, where Console.app looks for it."""
    return program.home / f"Library/Logs/celery-mlx-{program.role}.log"


def text(program: Program) -> str:
    """The list. launchd knows no environment files, so a shell reads it and then becomes the program."""
    files = f'ulimit -S -n {OPEN_FILES} 2>/dev/null || ulimit -S -n "$(ulimit -H -n)"'
    start = f'{files}; set -a; . "$0"; exec {shlex.join(program.command)}'
    values: dict[str, Any] = {
        "Label": name(program),
        "ProgramArguments": ["/bin/sh", "-c", start, str(program.environment)],
        "WorkingDirectory": str(state_folder(program)),
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 10,
        "ExitTimeOut": program.stop_s,
        # Otherwise macOS gives a service less processor and disk time than what a person looks at.
        "ProcessType": "Interactive",
        "StandardOutPath": str(log(program)),
        "StandardErrorPath": str(log(program)),
        **({"UserName": program.user} if program.user else {}),
    }
    return plistlib.dumps(values, sort_keys=False).decode()


def folders(program: Program) -> list[Path]:
    """Folders that have to be there."""
    return [state_folder(program), log(program).parent]


def next_steps(program: Program) -> list[str]:
    """The commands that start it and show its log."""
    where = shlex.quote(str(path(program)))
    start = f"sudo launchctl bootstrap system {where}" if program.user else f"launchctl bootstrap gui/$(id -u) {where}"
    return [start, f"tail -f {shlex.quote(str(log(program)))}"]

"""A systemd unit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.cli.services.program import Program


def path(program: Program) -> Path:
    """Return the path of the unit."""
    folder = Path("/etc/systemd/system") if program.user else program.home / ".config/systemd/user"
    return folder / f"{name(program)}.service"


def name(program: Program) -> str:
    """The unit's name."""
    return f"celery-mlx-{program.role}"


def text(program: Program) -> str:
    """The unit. Stopping drains: SIGTERM goes to the worker alone, since its engines are still at work."""
    of_machine = bool(program.user)
    lines = [
        "[Unit]",
        f"Description={program.about}",
        *(["Wants=network-online.target", "After=network-online.target"] if of_machine else []),
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        f"ExecStart={' '.join(_quoted(word) for word in program.command)}",
        f"EnvironmentFile={_escaped(str(program.environment))}",
        *([f"User={program.user}"] if of_machine else []),
        "StateDirectory=celery-mlx",
        "WorkingDirectory=%S/celery-mlx",
        "Restart=on-failure",
        "RestartSec=5",
        # A wrong configuration: a new start fixes nothing.
        f"RestartPreventExitStatus={os.EX_CONFIG}",
        "KillMode=mixed",
        # By default systemd stops the whole unit when the kernel kills one of its processes for its memory, such as an engine.
        "OOMPolicy=continue",
        f"TimeoutStopSec={program.stop_s}",
        "NoNewPrivileges=yes",
        "LimitNOFILE=65536",
        "",
        "[Install]",
        f"WantedBy={'multi-user' if of_machine else 'default'}.target",
    ]
    return "\n".join(lines) + "\n"


def folders(_: Program) -> list[Path]:
    """Folders that have to be there: none, systemd makes the one in which the service runs."""
    return []


def next_steps(program: Program) -> list[str]:
    """The commands that start it and show its log."""
    unit, control = name(program), "sudo systemctl" if program.user else "systemctl --user"
    start = [f"{control} daemon-reload", f"{control} enable --now {unit}"]
    if program.user:
        return [*start, f"journalctl -u {unit} -f"]
    return [
        *start,
        "loginctl enable-linger    # so that it runs while nobody is logged in",
        f"journalctl --user -u {unit} -f",
    ]


def _escaped(value: str) -> str:
    return value.replace("%", "%%")


def _quoted(word: str) -> str:
    """A word of ExecStart, where % and $ stand for other things."""
    word = _escaped(word).replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return word if word and not set(word) & set(" \t'\";") else f'"{word}"'

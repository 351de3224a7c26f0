"""The program of a service, on any platform: its command, its folder, and how long it may take to stop."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, TypeAlias

from tasks.names import PACKAGE
from worker_config import flowerconfig
from worker_config.settings import Settings, variable_name

if TYPE_CHECKING:
    from pathlib import Path

Role: TypeAlias = Literal["worker", "beat", "flower", "metrics", "gateway"]
ROLES: tuple[Role, ...] = ("worker", "beat", "flower", "metrics", "gateway")

ABOUT: dict[Role, str] = {
    "worker": "celery-mlx: a worker",
    "beat": "celery-mlx: beat, which requeues the work of dead workers",
    "flower": "celery-mlx: Flower",
    "metrics": "celery-mlx: metrics of the fleet for Prometheus",
    "gateway": "celery-mlx: OpenAI's interface over HTTP",
}
OPTIONS: dict[Role, tuple[str, ...]] = {
    "worker": ("--loglevel", "INFO"),
    "beat": ("--loglevel", "INFO", "--schedule", "celerybeat-schedule", "--pidfile="),
    "flower": (f"--conf={flowerconfig.__file__}",),
    "metrics": (),
    "gateway": (),
}
#: Programs that end within seconds may take this long; a worker takes this on top of its drain.
STOP_S = 30


@dataclass(slots=True, frozen=True)
class Program:
    """One service.

    Args:
        role: the sub-command of celery.
        options: further options that were given for it.
        environment: the file with its settings.
        drain_timeout_s: how long a worker drains.
        user: the user that runs it, for a service of the whole machine; empty for a service of the person who installs it.
        home: that user's home folder.
    """

    role: Role
    options: tuple[str, ...]
    environment: Path
    drain_timeout_s: float
    user: str
    home: Path

    @property
    def about(self) -> str:
        """The service in a few words, for people."""
        return ABOUT[self.role]

    @property
    def command(self) -> list[str]:
        """The command line, with this Python's own path: services have no PATH worth its name."""
        return [sys.executable, "-m", "celery", "-A", PACKAGE, self.role, *OPTIONS[self.role], *self.options]

    @property
    def stop_s(self) -> int:
        """After so long it may be killed."""
        return STOP_S + (int(self.drain_timeout_s) if self.role == "worker" else 0)


def environment_lines(settings: Settings) -> list[str]:
    """The environment file's lines: the settings where they are not the defaults, as sh and systemd read them.

    Raises:
        ValueError: a value has a line break, which no environment file can hold.
    """
    default = Settings()
    lines = [
        "# Settings of celery-mlx on this machine; see docs/operating.md. Only its owner can read it: it has a password."
    ]
    for field_ in fields(Settings):
        value = getattr(settings, field_.name)
        if value != getattr(default, field_.name) or field_.name == "redis_url":
            lines.append(f"{variable_name(field_)}={_quoted(_text(value))}")
    return lines


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(int(value))
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _quoted(value: str) -> str:
    """The value as both a shell and systemd's EnvironmentFile read it."""
    if "\n" in value:
        raise ValueError(f"{value!r} has a line break, which an environment file cannot hold")
    for character in '\\"$`':
        value = value.replace(character, f"\\{character}")
    return f'"{value}"'

"""The parts that ``up`` starts beside Redis, and how each is started."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec
from typing import TYPE_CHECKING

from tasks.names import PACKAGE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@dataclass(slots=True, frozen=True)
class Part:
    """One process.

    Args:
        name: the beginning of its lines.
        command: the program and its arguments.
        vital: without it the others are of no use: its end ends everything.
        about: how a person reaches it, in lines; empty where nobody does.
    """

    name: str
    command: tuple[str, ...]
    vital: bool = True
    about: tuple[str, ...] = ()


@dataclass(slots=True, frozen=True)
class Ports:
    """The ports of the parts that people reach, on loopback."""

    gateway: int
    flower: int


def parts_for(folder: Path, ports: Ports, left_out: Sequence[str], worker_arguments: Sequence[str]) -> Iterator[Part]:
    """The parts that are installed, in the order of their start.

    Args:
        folder: where beat keeps its schedule.
        ports: where they listen.
        left_out: names of parts that are not wanted.
        worker_arguments: the arguments of ``celery -A tasks worker``.
    """
    beat = ("--quiet", "beat", "--loglevel", "INFO", "--schedule", str(folder / "schedule"), "--pidfile", "")
    found = [Part("worker", _celery("worker", *worker_arguments)), Part("beat", _celery(*beat))]
    if has_gateway():
        url = f"http://localhost:{ports.gateway}"
        about = (f"{url} (a page to try models)", f"{url}/v1 (for OpenAI's clients)")
        found.append(Part("gateway", _celery("gateway", "--port", str(ports.gateway)), vital=False, about=about))
    if find_spec("flower") is not None:
        flower = _celery("flower", f"--port={ports.flower}", "--logging=error")
        found.append(Part("flower", flower, vital=False, about=(f"http://localhost:{ports.flower}",)))
    return (part for part in found if part.name not in left_out)


def has_gateway() -> bool:
    """Whether the gateway can be started: its command is there, and the libraries that it needs."""
    commands = {entry.name for entry in entry_points(group="celery.commands")}
    return "gateway" in commands and all(find_spec(name) is not None for name in ("starlette", "uvicorn"))


def _celery(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "celery", "-A", PACKAGE, *arguments)

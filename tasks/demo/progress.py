"""The progress of a long step: a bar on a terminal, a line a step without one."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def progress() -> Iterator[Callable[[str, float], None]]:
    """Gives a function that is told what is being done and the fraction of it that is done."""
    if sys.stdout.isatty():
        with _bar() as report:
            yield report
    else:
        yield _lines()


@contextmanager
def _bar() -> Iterator[Callable[[str, float], None]]:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, transient=True) as bar:
        step = bar.add_task("", total=1.0)
        yield lambda about, fraction: bar.update(step, description=about, completed=fraction)


def _lines() -> Callable[[str, float], None]:
    reported: list[str] = []

    def report(about: str, _fraction: float) -> None:
        if about not in reported:
            reported.append(about)
            print(f"{about} ...", flush=True)  # noqa: T201

    return report

"""Writes a diagnosis: with colours on a terminal, as plain lines elsewhere, or as one JSON object."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from tasks.messages.encoding import to_json

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from rich.console import Console

    from tasks.cli.diagnosis.line import Line
    from tasks.hardware import Hardware

STYLES = {"ok": ("✓", "green"), "note": ("–", "dim"), "warning": ("!", "yellow"), "failure": ("✗", "bold red")}
PLAIN_WIDTH = 14


class Report(Protocol):
    """Takes the sections of a diagnosis one after the other."""

    def busy(self, title: str) -> AbstractContextManager[object]:
        """Shows that a section is being looked at."""

    def section(self, title: str, lines: list[Line]) -> None:
        """Takes a section that is complete."""

    def end(self, hardware: Hardware | None) -> None:
        """Takes the machine and says how it all went."""


class PlainReport:
    """Lines for pipes, logs and simple terminals."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._levels: list[str] = []

    def busy(self, title: str) -> AbstractContextManager[object]:
        """Nothing: a pipe has no use for it."""
        return nullcontext(title)

    def section(self, title: str, lines: list[Line]) -> None:
        """Prints a heading and a line for each finding, with its remedy below it."""
        self._print(title)
        width = max((PLAIN_WIDTH, *(len(line.what) for line in lines)))
        for line in lines:
            self._levels.append(line.level)
            source = f" [{line.source}]" if line.source else ""
            self._print(f"  {line.level:<8} {line.what:<{width}} {line.says}{source}")
            if line.remedy and line.level not in ("ok", "note"):
                self._print(f"  {'':<8} {'':<{width}} -> {line.remedy}")

    def end(self, hardware: Hardware | None) -> None:
        """Prints the counts."""
        self._print(summary(self._levels))

    def _print(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()


class RichReport:
    """Marks, colours and columns for a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._levels: list[str] = []

    def busy(self, title: str) -> AbstractContextManager[object]:
        """A spinner."""
        return self._console.status(f"{title} …")

    def section(self, title: str, lines: list[Line]) -> None:
        """Prints a heading and a row for each finding, with its remedy below it."""
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2, 0, 0))
        table.add_column(width=1)
        table.add_column(min_width=PLAIN_WIDTH, no_wrap=True)
        table.add_column(overflow="fold")
        for line in lines:
            self._levels.append(line.level)
            mark, style = STYLES[line.level]
            says = Text(line.says, style="" if line.level == "ok" else style)
            if line.source:
                says.append(f"  {line.source}", style="dim")
            if line.remedy and line.level not in ("ok", "note"):
                says.append(f"\n→ {line.remedy}", style="cyan")
            table.add_row(Text(mark, style=style), Text(line.what), says)
        self._console.print(Text(title, style="bold"), table, "")

    def end(self, hardware: Hardware | None) -> None:
        """Prints the counts."""
        from rich.text import Text

        worst = max(self._levels, key=list(STYLES).index, default="ok")
        self._console.print(Text(summary(self._levels), style=STYLES[worst][1]))


class JsonReport:
    """Everything at the end, for programs."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._sections: dict[str, list[dict[str, str]]] = {}

    def busy(self, title: str) -> AbstractContextManager[object]:
        """Nothing."""
        return nullcontext(title)

    def section(self, title: str, lines: list[Line]) -> None:
        """Keeps a section."""
        self._sections[title.lower()] = [asdict(line) for line in lines]

    def end(self, hardware: Hardware | None) -> None:
        """Prints the object: ``ok``, ``hardware`` (:class:`tasks.hardware.Hardware`) and ``sections``."""
        lines = [line for section in self._sections.values() for line in section]
        answer: dict[str, Any] = {
            "ok": all(line["level"] != "failure" for line in lines),
            "hardware": asdict(hardware) if hardware else None,
            "sections": self._sections,
        }
        self._out.write(to_json(answer, indent=2) + "\n")


def report_for(out: TextIO, *, as_json: bool, no_color: bool) -> Report:
    """The report that suits where it goes; colours need a terminal, rich and an encoding that has the marks."""
    if as_json:
        return JsonReport(out)
    if not out.isatty() or find_spec("rich") is None or not (out.encoding or "").lower().startswith("utf"):
        return PlainReport(out)
    from rich.console import Console

    return RichReport(Console(file=out, highlight=False, no_color=no_color or None))


def summary(levels: list[str]) -> str:
    """The last line, as in "1 failure, 2 warnings, 17 ok"."""
    counts = {level: levels.count(level) for level in ("failure", "warning")}
    words = [f"{count} {level}{'s' if count > 1 else ''}" for level, count in counts.items() if count]
    return ", ".join([*words, f"{levels.count('ok')} ok"])

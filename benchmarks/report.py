"""The report of a run: ``results.json`` for programs, ``report.md`` with its charts for people."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.charts import draw

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.figures import Figure, Findings

VERSION = 1


@dataclass(slots=True, frozen=True, kw_only=True)
class Run:
    """One run of the benchmarks."""

    command: str
    started_at: str
    seconds: float
    repeats: int
    quick: bool
    machine: dict[str, Any]
    versions: dict[str, str]
    rows: Sequence[Findings]


def write(run: Run, folder: Path) -> Path:
    """Write all files into the folder, which is made; returns the report's path."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.svg"):
        path.unlink()
    (folder / "results.json").write_text(
        json.dumps(as_json(run), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    for row in run.rows:
        for chart in row.charts:
            (folder / chart_name(row.row, chart.title)).write_text(draw(chart), encoding="utf-8")
    report = folder / "report.md"
    report.write_text(as_markdown(run), encoding="utf-8")
    return report


def as_json(run: Run) -> dict[str, Any]:
    """The whole run."""
    return {
        "version": VERSION,
        "command": run.command,
        "started_at": run.started_at,
        "seconds": round(run.seconds, 1),
        "repeats": run.repeats,
        "quick": run.quick,
        "machine": run.machine,
        "versions": run.versions,
        "rows": [
            {
                "row": row.row,
                "about": row.about,
                "seconds": round(row.seconds, 1),
                "error": row.error,
                "figures": [_figure(figure) for figure in row.figures],
                "measurements": [_figure(figure) for figure in row.measurements],
            }
            for row in run.rows
        ],
    }


def _figure(figure: Figure) -> dict[str, Any]:
    target = figure.target
    return {
        "name": figure.name,
        "unit": figure.unit,
        "values": list(figure.values),
        "median": figure.median,
        "lowest": min(figure.values),
        "highest": max(figure.values),
        "target": target and {"kind": target.kind, "must": target.must, "aim": target.aim},
        "reached": figure.reached,
    }


def as_markdown(run: Run) -> str:
    """The report."""
    machine = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in run.machine.items())
    versions = ", ".join(f"{name} {value}" for name, value in run.versions.items())
    lines = [
        "# Benchmarks",
        "",
        f"`{run.command}`, {run.started_at}, {run.seconds / 60:.1f} minutes.",
        "",
        f"- Machine: {machine}.",
        f"- Versions: {versions}.",
        f"- Each contender was measured {run.repeats} times, in turns. A figure is the median, beside the lowest and highest.",
        "- A ratio is made of two values of the same turn.",
    ]
    if run.quick:
        lines.append("- A quick run: it shows that everything works. Its figures mean little and are not judged.")
    for row in run.rows:
        lines += ["", f"## {row.row}", "", row.about, ""]
        if row.error:
            lines += [f"**It failed**: {row.error}", ""]
        lines += _table(row.figures, targets=True)
        for chart in row.charts:
            lines += ["", f"![{chart.title}]({chart_name(row.row, chart.title)})"]
        if row.measurements:
            lines += ["", "<details><summary>What was measured</summary>", ""]
            lines += [*_table(row.measurements, targets=False), "", "</details>"]
    return "\n".join(lines) + "\n"


def _table(figures: Sequence[Figure], *, targets: bool) -> list[str]:
    if not figures:
        return []
    heads = ["figure", "median", "spread", *(["must", "aim", ""] if targets else [])]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    for figure in figures:
        cells = [figure.name.replace("|", "\\|"), _value(figure.median, figure.unit), spread(figure)]
        if targets:
            cells += judged(figure)
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def judged(figure: Figure) -> list[str]:
    """What it must be, what it should be, and whether it is."""
    target = figure.target
    if target is None:
        return ["", "", ""]
    sign = "≥" if target.kind == "at least" else "≤"
    aim = "" if target.aim is None else f"{target.aim:g}"
    return [f"{sign} {target.must:g}", aim, "yes" if figure.reached else "**no**"]


def spread(figure: Figure) -> str:
    """The lowest and the highest value."""
    return f"{_number(min(figure.values))} … {_number(max(figure.values))}"


def _value(value: float, unit: str) -> str:
    return f"{_number(value)} {unit}".strip()


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def chart_name(row: str, title: str) -> str:
    """The chart's file."""
    return f"{row}-{re.sub(r'[^a-z0-9]+', '-', title.lower()).strip('-')}.svg"

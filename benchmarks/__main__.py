"""``make bench``: measure, show progress, and write ``benchmarks/results``."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.bench import Bench
from benchmarks.machine import command_line, describe_machine, describe_versions
from benchmarks.report import Run, judged, spread, write
from tasks.demo.embedded import EmbeddedServer
from tasks.demo.errors import SetupError
from tasks.demo.progress import progress
from tasks.server.connection import connect
from worker_config.environment import SettingError
from worker_config.settings import change_environment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.bench import Row
    from benchmarks.figures import Findings

RESULTS = Path(__file__).parent / "results"
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the rows that were asked for; 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rows", help="names, separated by commas; all of them if left out")
    parser.add_argument("--repeat", type=int, help="how often each contender is measured (3; 1 if quick)")
    parser.add_argument("--quick", action="store_true", help="tiny loads: shows that everything works, in 3 minutes")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder for the results")
    options = parser.parse_args(arguments)
    repeats = (1 if options.quick else 3) if options.repeat is None else options.repeat
    if repeats < 1:
        parser.error(f"--repeat {repeats}: expected at least 1")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with EmbeddedServer() as server:
            change_environment(REDIS_URL=server.url, CELERY_MLX_ALLOW_FAKE="1", HF_HUB_OFFLINE="1")
            return run(
                server, _rows(parser, options.rows), repeats=repeats, quick=options.quick, results=options.results
            )
    except (SetupError, SettingError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return INTERRUPTED


def _rows(parser: argparse.ArgumentParser, names: str | None) -> list[Row]:
    from benchmarks.rows import ROWS  # after the settings name the server: Celery's applications read them when loaded

    known = {row.name: row for row in ROWS}
    asked = names.split(",") if names else list(known)
    unknown = [name for name in asked if name not in known]
    if unknown:
        parser.error(f"--rows: unknown row {unknown[0]!r}; the rows are {', '.join(known)}")
    return [known[name] for name in asked]


def run(server: EmbeddedServer, rows: Sequence[Row], *, repeats: int, quick: bool, results: Path) -> int:
    """Measure the rows one after the other and write the report; after an interrupt, of the rows that are done."""
    interrupted = False
    started, started_at = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    machine = describe_machine()
    done: list[Findings] = []
    with tempfile.TemporaryDirectory(prefix="celery-mlx-bench-") as folder, closing(connect(server.url)) as client:
        versions = describe_versions(client)
        with progress() as report:

            def say(about: str) -> None:
                report(about, len(done) / len(rows))

            bench = Bench(server, client, Path(folder), repeats, quick, say)
            try:
                for row in rows:
                    say(row.name)
                    client.flushall()
                    done.append(row.run(bench))
            except KeyboardInterrupt:
                if not done:
                    raise
                interrupted = True
    path = write(
        Run(
            command=command_line(),
            started_at=started_at,
            seconds=time.monotonic() - started,
            repeats=repeats,
            quick=quick,
            machine=machine,
            versions=versions,
            rows=done,
        ),
        results,
    )
    _show(done)
    print(f"{path} has it all, with charts")
    if interrupted:
        print("stopped", file=sys.stderr)
        return INTERRUPTED
    return 1 if any(row.error for row in done) else 0


def _show(done: Sequence[Findings]) -> None:
    """Print the figures."""
    from rich.console import Console
    from rich.table import Table

    # A pipe has no width; a figure should have one line there.
    console = Console(width=None if sys.stdout.isatty() else 160)
    for findings in done:
        table = Table(title=f"{findings.row} ({findings.seconds:.0f} s)", title_justify="left", title_style="bold")
        table.add_column("figure")
        for head in ("median", "unit", "spread", "must", "aim", "reached"):
            table.add_column(head, justify="right")
        for figure in findings.figures:
            table.add_row(figure.name, f"{figure.median:.3g}", figure.unit, spread(figure), *judged(figure))
        console.print(table)
        if findings.error:
            console.print(f"[red]{findings.row} failed:[/] {findings.error}", highlight=False)


if __name__ == "__main__":
    sys.exit(main())

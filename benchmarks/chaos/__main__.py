"""``python -m benchmarks.chaos``: faults under load, a table of what they did, and exit code 1 if anything was lost."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from benchmarks.chaos.answers import Answers, make_catalogue
from benchmarks.chaos.faults import FAULTS, Storm
from benchmarks.chaos.fleet import Fleet
from benchmarks.chaos.mix import Texts
from benchmarks.chaos.sabotage import KINDS, Saboteur

if TYPE_CHECKING:
    from benchmarks.chaos.judge import Reading
    from benchmarks.chaos.load import Load


def main() -> int:
    """Run the storm and print what it did."""
    options = _options()
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-"))
        answers = options.mix == "answers"
        environment = {"CELERY_MLX_CATALOGUE": str(make_catalogue(Path(folder)))} if answers else {}
        fleet = stack.enter_context(Fleet(Path(folder), options.workers, options.slots, **environment))
        from benchmarks.chaos.load import Load  # its application reads the settings that the fleet has made

        mix = Answers() if answers else Texts()
        if isinstance(mix, Answers):
            mix.learn()
        load = Load(mix, options.requests, options.readers, options.seed, options.end_s)
        storm = Storm(fleet, load, options.pause_s, options.seed, options.only)
        load.start()
        saboteur = Saboteur(fleet, load, options.sabotage)
        saboteur.start()
        begun = time.monotonic()
        while load.running:
            if len(storm.happened) < options.faults:
                storm.once()
            else:
                time.sleep(0.2)
            fleet.supervise()
            _tell(load, storm, begun)
        load.audit()
        logs = {path.name: path.read_text(errors="replace") for path in Path(folder).glob("*.log")}
    for task_id, kind in saboteur.damaged.items():
        print(f"sabotage of a {kind}: {task_id}")
    return _report(load, storm, time.monotonic() - begun, logs)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument(
        "--mix",
        choices=("texts", "answers"),
        default="texts",
        help="free text of a fake engine, or schemas, tools and thoughts of a tiny model (texts)",
    )
    parser.add_argument("--requests", type=int, default=4_000, help="requests in all (4000)")
    parser.add_argument("--faults", type=int, default=400, help="faults at most (400)")
    parser.add_argument("--readers", type=int, default=20, help="requests at once (20)")
    parser.add_argument("--workers", type=int, default=3, help="workers (3)")
    parser.add_argument("--slots", type=int, default=12, help="slots of each worker (12)")
    parser.add_argument("--pause-s", type=float, default=1.2, help="mean time between two faults (1.2)")
    parser.add_argument("--seed", type=int, default=1, help="of all draws (1)")
    parser.add_argument("--end-s", type=float, default=120.0, help="longest time of any way of reading (120)")
    parser.add_argument(
        "--only", action="append", choices=list(FAULTS), default=[], help="draw this fault; may be repeated (all)"
    )
    parser.add_argument(
        "--sabotage",
        action="append",
        choices=KINDS,
        default=[],
        help="damage one thing beyond repair: the run has to notice it; may be repeated",
    )
    return parser.parse_args()


def _tell(load: Load, storm: Storm, begun: float) -> None:
    if sys.stdout.isatty():
        done = sum(reading.verdict != "running" for reading in load.readings)
        print(
            f"\r{time.monotonic() - begun:5.0f} s  {len(storm.happened)} faults  {done}/{load.total} requests",
            end="",
            flush=True,
        )


def _report(load: Load, storm: Storm, took_s: float, logs: dict[str, str]) -> int:
    verdicts = Counter(reading.verdict for reading in load.readings)
    by_number = {reading.number: reading for reading in load.readings}
    table = Table("fault", "times", "streams hit", "next token, p50", "p99", title="Faults under load")
    for name in FAULTS:
        waits = sorted(
            wait
            for fault, at, numbers in storm.happened
            if fault == name
            for number in numbers
            if (wait := _next_token_s(by_number[number], at)) is not None
        )
        times = sum(fault == name for fault, _, _ in storm.happened)
        figures = [f"{_percentile(waits, share):.2f} s" if waits else "–" for share in (0.5, 0.99)]
        table.add_row(name, str(times), str(len(waits)), *figures)
    console = Console()
    console.print(table)
    console.print(
        f"{len(storm.happened)} faults, {len(load.readings)} requests in {took_s:.0f} s: {verdicts['lost']} lost, "
        f"{verdicts['repeated']} repeated, {verdicts['wrong']} wrong, {verdicts['hung'] + verdicts['running']} hung, "
        f"{verdicts['invalid']} invalid"
    )
    bad = [reading for reading in load.readings if reading.verdict != "ok"]
    for reading in bad[:10]:
        console.print(
            f"request {reading.number} ({reading.way}, {reading.task_id}): {reading.verdict}: {reading.detail}",
            markup=False,
        )
    if bad:
        for name, log in logs.items():
            Path(tempfile.gettempdir(), f"chaos-{name}").write_text(log)
        console.print(f"logs: {tempfile.gettempdir()}/chaos-*.log")
    return 1 if bad else 0


def _next_token_s(reading: Reading, at: float) -> float | None:
    """Time from a fault to the next chunk of a stream that ran; ``None`` where nothing was to come any more."""
    return next((moment - at for moment in reading.times if moment > at), None)


def _percentile(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, int(share * len(values)))]


if __name__ == "__main__":
    sys.exit(main())

"""``celery -A tasks doctor``: what this machine is, what it gets, and whether what it needs is there."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Any

import click
from celery.bin.base import CeleryCommand

from tasks.cli.diagnosis.line import Line
from tasks.cli.diagnosis.machine import machine_lines, package_lines, tier_lines
from tasks.cli.diagnosis.mlx import ask_probe, hub_lines, mlx_lines
from tasks.cli.diagnosis.models import disk_lines, model_lines
from tasks.cli.diagnosis.report import Report, report_for
from tasks.cli.diagnosis.server import server_lines
from tasks.hardware import detect
from worker_config.environment import SettingError
from worker_config.settings import current_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@click.command(cls=CeleryCommand)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def doctor(ctx: click.Context, /, as_json: bool, **_: Any) -> None:
    """Check this machine, Redis, MLX, models and disk.

    It names the tiers that a worker takes here, and what is missing. The exit status is 1 if a check failed.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A path or a model's name may have letters that the terminal's encoding has not.
        sys.stdout.reconfigure(errors="replace")
    report = report_for(sys.stdout, as_json=as_json, no_color=ctx.obj.no_color)
    failed = diagnose(ctx.obj.app, report)
    ctx.exit(1 if failed else 0)


def diagnose(app: Any, report: Report) -> bool:
    """Look at everything and report it; returns whether anything failed."""
    examination = Examination(report)
    try:
        settings = current_settings()
        hardware = detect(settings)
    except SettingError as error:
        wrong = Line("failure", "setting", str(error), "correct it, or unset it")
        examination.section("Machine", lambda: [wrong])
        examination.section("Redis", lambda: server_lines(app))
        report.end(None)
        return True
    examination.section("Machine", lambda: machine_lines(hardware))
    examination.section("Tiers", lambda: tier_lines(hardware))
    examination.section("Software", lambda: package_lines(hardware))
    examination.section("Redis", lambda: server_lines(app))
    with report.busy("MLX"):
        answer = ask_probe()
    examination.section("MLX", lambda: mlx_lines(answer, hardware))
    examination.section("Models", lambda: [*model_lines(settings, hardware), *hub_lines(answer)])
    examination.section("Disk", disk_lines)
    report.end(hardware)
    return examination.failed


class Examination:
    """Looks at one subject after the other. A check that breaks is a failure of its own and does not end the others."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self.failed = False

    def section(self, title: str, check: Callable[[], Iterable[Line]]) -> None:
        """Run a check and report its lines."""
        lines: list[Line] = []
        with self._report.busy(title):
            try:
                lines.extend(check())
            except Exception as error:  # noqa: BLE001 -- a person who asks what is wrong gets an answer, not a traceback
                remedy = "please report this line"
                lines.append(Line("failure", "doctor", f"could not look: {type(error).__name__}: {error}", remedy))
        self.failed |= any(line.level == "failure" for line in lines)
        self._report.section(title, lines)

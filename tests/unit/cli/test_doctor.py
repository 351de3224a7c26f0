"""The command: its order, its exit status, its three ways of writing, and that nothing ends in a traceback."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from tasks.cli import doctor as command
from tasks.cli.diagnosis.line import Line
from tasks.cli.diagnosis.report import JsonReport, PlainReport, RichReport, report_for, summary
from tasks.hardware import detect
from tests.unit.cli.test_doctor_mlx import ANSWER
from tests.unit.hardware.machines import linux, mac, recording
from worker_config.environment import SettingError
from worker_config.settings import Settings

if TYPE_CHECKING:
    from click.testing import Result

LINES = [
    Line("ok", "chip", "Apple M4", source="sysctl"),
    Line("warning", "GPU", "8 cores", "set it", "table"),
    Line("failure", "Redis", "refused", "start it"),
]
MAC = detect(Settings(), mac(recording("m4-max")))


@pytest.fixture(autouse=True)
def healthy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Mac on which everything is well; tests break one thing each."""
    monkeypatch.setattr(command, "detect", lambda _: MAC)
    monkeypatch.setattr(command, "ask_probe", lambda: ANSWER)
    monkeypatch.setattr(command, "server_lines", lambda _: [Line("ok", "Redis", "answers")])
    monkeypatch.setattr(command, "model_lines", lambda *_: [Line("ok", "default", "here")])
    monkeypatch.setattr(command, "disk_lines", lambda: [Line("ok", "disk", "plenty")])


def run(*args: str) -> Result:
    return CliRunner().invoke(command.doctor, args, obj=SimpleNamespace(app=None, no_color=False))


def test_a_healthy_machine() -> None:
    """All subjects are looked at in order, and the exit status is 0."""
    result = run()
    assert result.exit_code == 0, result.output
    headings = [line for line in result.output.splitlines() if not line.startswith(" ")]
    assert headings[:-1] == ["Machine", "Tiers", "Software", "Redis", "MLX", "Models", "Disk"]
    assert headings[-1].endswith(" ok")


def test_a_failure_is_exit_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """One failure anywhere is exit status 1, and its remedy is printed."""
    monkeypatch.setattr(command, "server_lines", lambda _: [LINES[2]])
    result = run()
    assert result.exit_code == 1
    assert "-> start it" in result.output
    assert "1 failure, " in result.output


def test_a_warning_is_exit_status_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """Warnings do not fail."""
    monkeypatch.setattr(command, "disk_lines", lambda: [LINES[1]])
    assert run().exit_code == 0


def test_a_check_that_breaks_ends_neither_the_others_nor_in_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in one check is a failure of its own, and what came before and after it is still reported."""

    def broken(*_: Any) -> Any:
        yield LINES[0]
        raise RuntimeError("surprise")

    monkeypatch.setattr(command, "server_lines", broken)
    result = run()
    assert result.exit_code == 1
    assert "could not look: RuntimeError: surprise" in result.output
    assert "Apple M4" in result.output
    assert "plenty" in result.output
    assert "Traceback" not in result.output


def test_a_bad_override_is_one_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad override is reported like anything else, and Redis is still asked."""

    def refuse(_: Settings) -> Any:
        raise SettingError("CELERY_MLX_CHIP='Pentium': expected an Apple chip")

    monkeypatch.setattr(command, "detect", refuse)
    result = run("--json")
    answer = json.loads(result.output)
    assert (result.exit_code, answer["ok"], answer["hardware"]) == (1, False, None)
    assert "Pentium" in answer["sections"]["machine"][0]["says"]
    assert answer["sections"]["redis"][0]["level"] == "ok"


def test_json_is_for_programs() -> None:
    """--json prints one object with the whole record of the machine and every line."""
    answer = json.loads(run("--json").output)
    assert answer["ok"] is True
    assert answer["hardware"]["gpu_cores"] == 40
    assert answer["hardware"]["sources"]["gpu_cores"] == "ioreg"
    assert list(answer["sections"]) == ["machine", "tiers", "software", "redis", "mlx", "models", "disk"]


def test_output_that_is_no_file() -> None:
    """Where a program has put something of its own in place of the standard output, doctor writes there."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = command.doctor.main(["--json"], obj=SimpleNamespace(app=None, no_color=False), standalone_mode=False)
    assert (code, json.loads(out.getvalue())["ok"]) == (0, True)


def test_terminal_report() -> None:
    """On a terminal there are marks, and remedies stand below the findings."""
    out = io.StringIO()
    report = RichReport(Console(file=out, force_terminal=True, width=60, color_system=None))
    with report.busy("Machine"):
        report.section("Machine", LINES)
    report.end(MAC)
    text = out.getvalue()
    assert "✓  chip" in text
    assert "✗  Redis" in text
    assert "→ start it" in text
    assert "1 failure, 1 warning, 1 ok" in text


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_the_report_suits_where_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colours need a terminal, rich and an encoding with the marks; programs get JSON."""

    class Ascii(Terminal):
        encoding = "ascii"

    assert isinstance(report_for(Terminal(), as_json=False, no_color=False), RichReport)
    assert isinstance(report_for(io.StringIO(), as_json=False, no_color=False), PlainReport)
    assert isinstance(report_for(Ascii(), as_json=False, no_color=False), PlainReport)
    assert isinstance(report_for(Terminal(), as_json=True, no_color=False), JsonReport)
    monkeypatch.setattr("tasks.cli.diagnosis.report.find_spec", lambda _: None)
    assert isinstance(report_for(Terminal(), as_json=False, no_color=False), PlainReport)


def test_plain_lines_have_the_source_and_the_remedy() -> None:
    """A plain line has level, subject, finding and source; a remedy stands on the line below."""
    out = io.StringIO()
    report = PlainReport(out)
    report.section("Machine", LINES)
    assert out.getvalue().splitlines()[2:4] == [
        "  warning  GPU            8 cores [table]",
        "                          -> set it",
    ]


def test_summary_counts() -> None:
    """The summary leaves out what there is none of."""
    assert summary(["ok", "ok"]) == "2 ok"
    assert summary(["failure", "failure", "warning"]) == "2 failures, 1 warning, 0 ok"


def test_letters_that_the_terminal_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """A path with letters outside the terminal's encoding is printed with marks in their place, not a traceback."""
    monkeypatch.setattr(command, "disk_lines", lambda: [Line("ok", "disk", "/home/zoë/モデル")])
    result = CliRunner(charset="ascii").invoke(command.doctor, [], obj=SimpleNamespace(app=None, no_color=True))
    assert result.exit_code == 0, result.exception
    assert "/home/zo?/???" in result.output


def test_without_psutil_and_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a producer's packages alone doctor still describes the machine."""
    monkeypatch.setitem(sys.modules, "psutil", None)
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setattr(command, "detect", lambda settings: detect(settings, linux()))
    result = run()
    assert result.exit_code == 0, result.output
    assert "Linux x86_64" in result.output

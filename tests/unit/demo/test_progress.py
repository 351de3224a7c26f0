"""Progress on a terminal and without one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tasks.demo.progress import progress

if TYPE_CHECKING:
    import pytest


def test_a_line_a_step_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Each step is said once, however often it is reported."""
    with progress() as report:
        for fraction in (0.0, 0.5, 1.0):
            report("downloading", fraction)
        report("converting", 0.5)
    assert capsys.readouterr().out == "downloading ...\nconverting ...\n"


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On a terminal the step and its percentage are shown."""
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    with progress() as report:
        report("downloading", 0.25)
    out = capsys.readouterr().out
    assert "downloading" in out
    assert "25%" in out

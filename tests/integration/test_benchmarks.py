from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

from tests.support import MARK, ROOT, assert_gone, runs_engine, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(600)
FIGURE = {"name", "unit", "values", "median", "lowest", "highest", "target", "reached"}


@pytest.fixture
def mark() -> Iterator[str]:
    """Marks the processes of one test; none may be left after it."""
    mark = uuid.uuid4().hex
    yield mark
    assert_gone(mark)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "benchmarks", *arguments]


def test_a_quick_run_writes_results_report_and_charts(mark: str, tmp_path: Path) -> None:
    """The cheapest rows run on the fake engine, and everything that they found is in the three kinds of files."""
    results = tmp_path / "results"
    done = subprocess.run(
        command("--rows", "relay,overhead", "--quick", "--results", str(results)),
        cwd=ROOT,
        env={**os.environ, MARK: mark},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads((results / "results.json").read_text())
    assert found["version"] == 1
    assert found["quick"] is True
    assert found["repeats"] == 1
    assert found["command"].startswith("python -m benchmarks --rows relay,overhead")
    assert {"cpu_cores", "blas", "system"} <= found["machine"].keys()
    assert {"python", "celery", "mlx", "valkey"} <= found["versions"].keys()
    assert [row["row"] for row in found["rows"]] == ["relay", "overhead"]
    for row in found["rows"]:
        assert row["error"] == ""
        assert row["figures"]
        for figure in row["figures"] + row["measurements"]:
            assert figure.keys() == FIGURE
            assert len(figure["values"]) == 1
            assert figure["lowest"] <= figure["median"] <= figure["highest"]
            assert figure["median"] > 0 or "sending and reading" in figure["name"]
    report = (results / "report.md").read_text()
    assert all(figure["name"] in report for row in found["rows"] for figure in row["figures"])
    charts = sorted(results.glob("*.svg"))
    assert [chart.name for chart in charts] == [
        "overhead-closed-loop-of-32-by-workers.svg",
        "relay-relayed-by-streams.svg",
    ]
    for chart in charts:
        assert ET.fromstring(chart.read_text()).tag.endswith("svg")  # noqa: S314  (our own file)
        assert chart.name in report


def test_a_killed_run_leaves_nothing_behind(mark: str, tmp_path: Path) -> None:
    """kill -9 of a run takes its server, its workers and their engines with it."""
    with subprocess.Popen(
        command("--rows", "faults", "--quick", "--results", str(tmp_path)),
        cwd=ROOT,
        env={**os.environ, MARK: mark, "TMPDIR": str(tmp_path)},  # nobody is left to remove its logs
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as run:
        try:
            wait_until(lambda: runs_engine(mark), timeout_s=200, about="an engine")
        finally:
            run.send_signal(signal.SIGKILL)
    assert_gone(mark)


def test_an_unknown_row_is_named_with_those_there_are(mark: str) -> None:
    """A row that does not exist ends the command at once, with the names of those that do."""
    done = subprocess.run(
        command("--rows", "overheat"),
        cwd=ROOT,
        env={**os.environ, MARK: mark},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2
    assert "unknown row 'overheat'; the rows are throughput, overhead, gateway, http, tax" in done.stderr

"""The guard: whatever happens to an owner, its process and that process's group end."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from tasks.demo.errors import SetupError
from tasks.demo.process import GuardedProcess
from tests.support import has_ended, wait_until

if TYPE_CHECKING:
    from pathlib import Path

STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
)
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(float(sys.argv[1]))
"""


def first_line(log: Path) -> str:
    wait_until(lambda: log.exists() and "\n" in log.read_text(), about="the process's first line")
    return log.read_text().splitlines()[0]


def test_output_and_status(tmp_path: Path) -> None:
    """The process's output is in the log, and its end is noticed."""
    log = tmp_path / "log"
    process = GuardedProcess([sys.executable, "-c", "print('a'); print('b')"], log=log, grace_s=5)
    wait_until(lambda: not process.running, about="its end")
    assert process.log_tail(1) == "b"
    process.stop()


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    """After its time to stop is over a stubborn process is killed."""
    process = GuardedProcess([sys.executable, "-c", STUBBORN], log=tmp_path / "log", grace_s=0.3)
    assert first_line(process.log) == "ready"
    process.stop()
    assert not psutil.pid_exists(process.pid)


def test_kill_does_not_wait(tmp_path: Path) -> None:
    """Killing takes no time to stop into account."""
    process = GuardedProcess([sys.executable, "-c", STUBBORN], log=tmp_path / "log", grace_s=60)
    assert first_line(process.log) == "ready"
    started = time.monotonic()
    process.kill()
    assert time.monotonic() - started < 30
    assert not psutil.pid_exists(process.pid)


@pytest.mark.parametrize("lifetime_s", ["0", "60"])
def test_a_process_that_it_started_ends_with_it(tmp_path: Path, lifetime_s: str) -> None:
    """A child that the process leaves behind, by ending or by being stopped, is killed with its group."""
    process = GuardedProcess([sys.executable, "-c", PARENT, lifetime_s], log=tmp_path / "log", grace_s=5)
    child = int(first_line(process.log))
    if lifetime_s == "0":
        wait_until(lambda: not process.running, about="the parent's end")
    process.stop()
    wait_until(lambda: has_ended(child), about="the child's end")


def test_folder_is_removed_at_an_orderly_end_and_kept_at_a_failure(tmp_path: Path) -> None:
    """The folder to remove stays only where it tells why the process failed."""
    for status in (0, 3):
        folder = tmp_path / str(status)
        folder.mkdir()
        log = folder / "log"
        command = [sys.executable, "-c", f"raise SystemExit({status})"]
        process = GuardedProcess(command, log=log, grace_s=5, remove=folder)
        wait_until(lambda guarded=process: not guarded.running, about="its end")  # type: ignore[misc]
        process.stop()
        assert folder.exists() is bool(status)


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    """A program that is not there is an error with its path and the system's reason."""
    with pytest.raises(SetupError, match=r"/no/such/program cannot be started \(No such file"):
        GuardedProcess(["/no/such/program"], log=tmp_path / "log", grace_s=5)


def test_a_log_that_is_not_there_is_empty(tmp_path: Path) -> None:
    """Asking for the last words of a process whose folder is gone is no error."""
    process = GuardedProcess([sys.executable, "-c", ""], log=tmp_path / "log", grace_s=5)
    process.stop()
    process.log.unlink()
    assert process.log_tail() == ""

"""The gate to the real machine: programs that hang, fail or are missing, files, and libraries that are absent."""

from __future__ import annotations

import os
import stat
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from tasks.hardware import detect
from tasks.hardware.machine import (
    ProbeFailed,
    host_memory,
    load_nvml,
    read_file,
    run_program,
    this_machine,
    usable_cpus,
)
from worker_config.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path


def test_program_prints() -> None:
    """What a program prints comes back, also when its exit status is not 0."""
    code = "import sys; print('hw.memsize: 1'); sys.exit(1)"
    assert run_program([sys.executable, "-c", code], 60) == "hw.memsize: 1\n"


def test_program_that_prints_bytes_that_are_no_text() -> None:
    """Bytes that are not UTF-8 are replaced, not raised."""
    code = "import sys; sys.stdout.buffer.write(b'a\\xff')"
    assert run_program([sys.executable, "-c", code], 60) == "a\ufffd"


def test_program_that_hangs_is_killed() -> None:
    """A program that does not end is killed after its time-out, and nothing of it stays behind."""
    before = set(psutil.Process().children())
    begun = time.monotonic()
    with pytest.raises(ProbeFailed, match=r"did not end within 0\.2 s"):
        run_program([sys.executable, "-c", "import time; time.sleep(60)"], 0.2)
    assert time.monotonic() - begun < 30
    assert set(psutil.Process().children()) <= before


def test_missing_program() -> None:
    """A program that is not installed is a probe that failed, which names it."""
    with pytest.raises(ProbeFailed, match="no-such-program is not installed"):
        run_program(["no-such-program"], 1)


def test_program_that_cannot_be_started(tmp_path: Path) -> None:
    """A file that is no program is a probe that failed, with the system's reason."""
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF")
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    with pytest.raises(ProbeFailed, match="cannot be started"):
        run_program([str(broken)], 1)


def test_system_programs_are_found_without_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler's bare PATH does not hide the system's own programs."""
    monkeypatch.setenv("PATH", "/nowhere")
    assert run_program(["true"], 60) == ""


def test_missing_file_is_empty(tmp_path: Path) -> None:
    """A file that is absent, or a folder, reads as empty."""
    assert read_file(str(tmp_path / "absent")) == ""
    assert read_file(str(tmp_path)) == ""


def test_memory_without_psutil(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without psutil the memory comes from the C library, and is the same."""
    with_psutil = host_memory()
    monkeypatch.setitem(sys.modules, "psutil", None)
    without = host_memory()
    assert (with_psutil[1], without[1]) == ("psutil", "sysconf")
    assert without[0] == pytest.approx(with_psutil[0], rel=0.01)


def test_cpus_without_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system knows no affinity, as macOS, every core counts."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert usable_cpus() == (os.cpu_count(), "platform")


def test_nvml_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without NVIDIA's library there is no GPU to ask."""
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(ProbeFailed, match="nvidia-ml-py is not installed"):
        load_nvml()


def test_nvml_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With it, its module is what is asked."""
    monkeypatch.setitem(sys.modules, "pynvml", sys)
    assert load_nvml() is sys


def test_the_machine_that_runs_the_tests() -> None:
    """Detection of the real machine finds memory and cores that psutil agrees with, or tighter limits."""
    hardware = detect(Settings())
    assert hardware is detect(Settings()), "programs are asked once per process"
    assert hardware == detect(Settings(), this_machine())
    assert 0 < hardware.memory_bytes <= psutil.virtual_memory().total
    assert 1 <= hardware.cpu_cores <= (psutil.cpu_count() or 1)
    assert hardware.os_version != "unknown"
    assert not hardware.overridden

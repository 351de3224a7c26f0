"""What doctor says of the machine, its tiers and its packages."""

from __future__ import annotations

from importlib import metadata
from typing import TYPE_CHECKING

import pytest

from tasks.cli.diagnosis.line import Line, gib
from tasks.cli.diagnosis.machine import machine_lines, package_lines, tier_lines
from tasks.hardware import Hardware, detect
from tests.unit.hardware.machines import FakeNvml, linux, mac, recording
from worker_config.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterable


def by_what(lines: Iterable[Line]) -> dict[str, Line]:
    return {line.what: line for line in lines}


def detected(name: str) -> Hardware:
    return detect(Settings(), mac(recording(name)))


def test_a_mac_that_answers_has_only_good_lines() -> None:
    """A Mac whose values are all its own has a line for each, with the source beside it."""
    lines = by_what(machine_lines(detected("m4-max")))
    assert {line.level for line in lines.values()} == {"ok"}
    assert (lines["chip"].says, lines["chip"].source) == ("Apple M4 Max", "sysctl")
    assert (lines["GPU"].says, lines["GPU"].source) == ("40 cores, Metal", "ioreg")
    assert lines["processor"].says == "16 cores: 12 performance, 4 efficiency"
    assert lines["memory"].says == "128 GB"
    assert lines["GPU memory"].says == "112 GB"
    assert lines["system"].says == "macOS 15.5"


@pytest.mark.parametrize(("name", "why"), [("virtual-machine", "smallest sold"), ("unknown", "unknown chip")])
def test_an_assumed_gpu_is_a_warning(name: str, why: str) -> None:
    """GPU cores from the table, or of an unknown chip, are a warning that says how to correct them."""
    programs = recording("virtual-machine")
    if name == "unknown":
        programs = recording("virtual-machine", sysctl="machdep.cpu.brand_string: Apple Z1\n")
    line = by_what(machine_lines(detect(Settings(), mac(programs))))["GPU"]
    assert line.level == "warning"
    assert why in line.says
    assert "CELERY_MLX_GPU_CORES" in line.remedy


def test_an_override_is_shown_as_one() -> None:
    """An overridden machine is marked on each line it touches, and by a warning that says how to undo it."""
    lines = by_what(machine_lines(detect(Settings(chip="M3 Ultra", memory_gb=192), linux())))
    assert lines["chip"].source == lines["memory"].source == "override"
    assert lines["overridden"].level == "warning"
    assert "memory_bytes" in lines["overridden"].says
    assert "CELERY_MLX_CHIP" in lines["overridden"].remedy


def test_machines_without_an_apple_gpu() -> None:
    """A processor alone, and an NVIDIA GPU, are described as what they are."""
    assert by_what(machine_lines(detect(Settings(), linux())))["GPU"].says == "none that MLX can use"
    nvidia = by_what(machine_lines(detect(Settings(), linux(nvml=FakeNvml))))
    assert nvidia["GPU"].says == "132 multiprocessors, CUDA"
    assert nvidia["GPU memory"].says == "80 GB"


def test_unknown_memory_is_a_failure() -> None:
    """A machine whose memory nobody knows cannot be trusted with models, and doctor says how to tell it."""
    line = by_what(machine_lines(detect(Settings(), linux(memory_bytes=0))))["memory"]
    assert (line.level, line.says) == ("failure", "unknown")
    assert "CELERY_MLX_MEMORY_GB" in line.remedy


def test_tiers_and_why_no_more() -> None:
    """The tiers that a machine serves are listed with their slots, then what it lacks for the next one."""
    lines = by_what(tier_lines(detect(Settings(chip="M2 Pro", memory_gb=16), linux())))
    assert list(lines) == ["<3B", "3-7B", "7-13B", "beyond", "budget"]
    assert lines["7-13B"].says == "9 requests at once, queue tier-7-13B"
    assert lines["beyond"].says.startswith("13-27B needs 20 GPU cores, this machine has 16")
    assert lines["budget"].says.startswith("12.8 GB")


def test_a_machine_that_serves_everything() -> None:
    """Where no tier is left out, doctor says so."""
    lines = by_what(tier_lines(detected("m4-max")))
    assert "every tier" in lines["beyond"].says


def test_packages_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with a producer's packages alone, psutil is a failure, rich a warning, each with the command."""
    versions = {"psutil": None, "rich": None, "uvicorn": None}

    def version(name: str) -> str:
        if name in versions:
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(metadata, "version", version)
    lines = by_what(package_lines(detect(Settings(), linux())))
    assert {name: line.level for name, line in lines.items()} == {
        "Python": "ok",
        "celery-mlx": "ok",
        "celery": "ok",
        "redis": "ok",
        "psutil": "failure",
        "rich": "warning",
        "gateway": "ok",
    }
    assert "celery-mlx[web]" in lines["gateway"].says
    assert lines["psutil"].remedy == "pip install 'celery-mlx[worker]'"


def test_a_python_that_has_the_gateway() -> None:
    """Doctor says with what to start it, and the versions of its server."""
    line = by_what(package_lines(detect(Settings(), linux())))["gateway"]
    assert line.level == "ok"
    assert line.says.startswith("celery -A tasks gateway answers")
    assert f"uvicorn {metadata.version('uvicorn')}" in line.says


def test_python_under_rosetta() -> None:
    """A Python for Intel on a Mac with Apple's chip is a failure, because MLX does not exist for it."""
    apple = detect(Settings(), mac(recording("m4"), architecture="x86_64"))
    intel = detect(Settings(), mac(recording("intel-mac"), architecture="x86_64"))
    assert by_what(package_lines(apple))["Python"].level == "failure"
    assert "Rosetta" in by_what(package_lines(apple))["Python"].remedy
    assert by_what(package_lines(intel))["Python"].level == "ok"


@pytest.mark.parametrize(
    ("size", "text"), [(16 << 30, "16 GB"), (11_453_246_122, "10.7 GB"), (98_000_000, "0.09 GB"), (4 << 40, "4,096 GB")]
)
def test_sizes_are_written_as_memory_is_sold(size: int, text: str) -> None:
    """Sizes are in binary gigabytes with three figures that count."""
    assert gib(size) == text

"""Reads macOS's answers about a Mac."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.hardware.chips import UNKNOWN_GPU_CORES, apple_chip
from tasks.hardware.machine import ProbeFailed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.hardware.findings import Findings
    from tasks.hardware.machine import Machine

# Names that a machine may not have come last: an old sysctl ends at the first one it does not know.
SYSCTL = (
    "sysctl",
    "machdep.cpu.brand_string",
    "hw.memsize",
    "hw.logicalcpu",
    "hw.perflevel0.logicalcpu",
    "hw.perflevel1.logicalcpu",
    "iogpu.wired_limit_mb",
    "hw.perflevel2.logicalcpu",
)
SW_VERS = ("sw_vers",)
IOREG = ("ioreg", "-r", "-d", "1", "-w", "0", "-c", "IOAccelerator")
SYSTEM_PROFILER = ("system_profiler", "SPDisplaysDataType", "-json")

QUICK_TIMEOUT_S = 2.0
#: system_profiler takes 0.2 s on an idle machine and has been seen to take seconds on a busy one.
SYSTEM_PROFILER_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class RegistryGpu:
    """The GPU's entry in the I/O registry. ``None`` stands for a missing value."""

    gpu_cores: int | None
    busy_percent: float | None
    memory_used_bytes: int | None


def ask_macos(machine: Machine, found: Findings) -> None:
    """Fill in this Mac's description of itself. No answer, an empty one or garbage leaves a gap and is no error."""
    sysctl = parse_lines(answer(machine, SYSCTL, QUICK_TIMEOUT_S))
    found.add(
        "sysctl",
        chip=sysctl.get("machdep.cpu.brand_string"),
        memory_bytes=_positive(sysctl.get("hw.memsize")),
        cpu_cores=_positive(sysctl.get("hw.logicalcpu")),
        cpu_cores_performance=_positive(sysctl.get("hw.perflevel0.logicalcpu")),
        # Levels go from the fastest cores down; a chip may have three, and the last may be empty.
        cpu_cores_efficiency=_positive(sysctl.get("hw.perflevel2.logicalcpu"))
        or _positive(sysctl.get("hw.perflevel1.logicalcpu")),
    )
    versions = parse_lines(answer(machine, SW_VERS, QUICK_TIMEOUT_S))
    found.add("sw_vers", os_name=versions.get("ProductName"), os_version=versions.get("ProductVersion"))
    memory_bytes, memory_source = machine.memory()
    cpus, cpus_source = machine.cpus()
    found.add(memory_source, memory_bytes=memory_bytes)
    found.add(cpus_source, cpu_cores=cpus)
    found.add("platform", os_name="macOS", accelerator="metal" if machine.is_apple_silicon else "cpu")
    if found.source("memory_bytes") != "override":
        found.add("sysctl", gpu_memory_bytes=_mebibytes(sysctl.get("iogpu.wired_limit_mb")))
    if machine.is_apple_silicon and found.source("chip") != "override":
        ask_gpu(machine, found)


def ask_gpu(machine: Machine, found: Findings) -> None:
    """Fills in the GPU cores: from the I/O registry (2 ms), else from system_profiler (0.2 s to seconds)."""
    found.add("ioreg", gpu_cores=parse_accelerator(answer(machine, IOREG, QUICK_TIMEOUT_S)).gpu_cores)
    if found.get("gpu_cores") is None or found.get("chip") is None:
        chip, cores = parse_displays(answer(machine, SYSTEM_PROFILER, SYSTEM_PROFILER_TIMEOUT_S))
        found.add("system_profiler", chip=chip, gpu_cores=cores)


def assume_apple(found: Findings) -> None:
    """Fill in the properties in the chip's name: generation, variant and, where nobody counted them, the GPU cores."""
    chip = apple_chip(found.get("chip") or "")
    if chip:
        found.add(found.source("chip"), generation=chip.generation, variant=chip.variant)
        found.add("table", gpu_cores=chip.fewest_gpu_cores)
    found.add("unknown", gpu_cores=UNKNOWN_GPU_CORES)


def answer(machine: Machine, argv: Sequence[str], timeout_s: float) -> str:
    """Return the output of a program; empty if it gives no answer."""
    try:
        return machine.run(argv, timeout_s)
    except ProbeFailed:
        return ""


def parse_lines(text: str) -> dict[str, str]:
    """``name: value`` lines, as sysctl and sw_vers print them."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs if value.strip()}


def parse_displays(text: str) -> tuple[str | None, int | None]:
    """The chip and its GPU cores out of ``system_profiler SPDisplaysDataType -json``.

    The list may be empty, as on a virtual machine, and the entry of a paravirtual GPU has no ``sppci_cores``.
    """
    try:
        entries = json.loads(text)["SPDisplaysDataType"]
        for entry in entries:
            model = entry.get("sppci_model")
            if isinstance(model, str) and model.startswith("Apple"):
                return model, _positive(entry.get("sppci_cores"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, None
    return None, None


def parse_accelerator(text: str) -> RegistryGpu:
    """The GPU in ``ioreg -c IOAccelerator``, in the words of its driver: cores, utilisation and memory in use."""
    cores = re.search(r'"gpu-core-count"\s*=\s*(\d+)', text)
    busy = re.search(r'"Device Utilization %"\s*=\s*(\d+(?:\.\d+)?)', text)
    memory = re.search(r'"In use system memory"\s*=\s*(\d+)', text)
    percent = float(busy[1]) if busy else None
    return RegistryGpu(
        gpu_cores=_positive(cores[1]) if cores else None,
        busy_percent=percent if percent is not None and percent <= 100 else None,
        memory_used_bytes=int(memory[1]) if memory else None,
    )


def _positive(text: Any) -> int | None:
    try:
        return int(text) if int(text) > 0 else None
    except (TypeError, ValueError):
        return None


def _mebibytes(text: str | None) -> int | None:
    count = _positive(text)
    return count * 1024**2 if count else None

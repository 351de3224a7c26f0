"""The records of a machine, and of its GPU's load."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

Accelerator: TypeAlias = Literal["metal", "cuda", "cpu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """One machine. ``None`` stands for an unknown value; nothing is made up.

    ``generation`` ("M3") and ``variant`` ("Base", "Pro", "Max", "Ultra") are Apple's and ``None`` elsewhere.
    ``gpu_cores`` are Apple's GPU cores with ``metal``, streaming multiprocessors with ``cuda`` (0 where unknown), and 0
    with ``cpu``; the two kinds do not compare. ``cpu_cores`` are the logical cores that this process may use: affinity
    and a container's quota are respected. Of Apple's two or three kinds of core the fastest count as performance cores
    and the slowest as efficiency cores, whatever Apple calls them. ``memory_bytes`` is the machine's or the container's
    memory, whichever is smaller. ``gpu_memory_bytes`` is what the GPU may use: its own memory with ``cuda``; with
    ``metal`` the limit that somebody has set (``iogpu.wired_limit_mb``), else ``None``: macOS keeps its own rule in the
    driver and changes it between versions (two thirds to three quarters), so the engine reports what the device says.
    ``accelerator`` decides the tiers, ``engine_accelerator`` is what MLX really computes on; they differ where the chip is
    overridden.

    ``sources`` says for each field where its value came from: ``sysctl``, ``ioreg``, ``system_profiler``, ``sw_vers``,
    ``nvml``, ``psutil``, ``sysconf``, ``affinity``, ``cgroup``, ``proc``, ``os-release``, ``platform``, ``table`` (what
    Apple sells under this chip's name), ``override`` (a setting) or ``unknown``. ``overridden`` marks a machine that is
    not what it says.
    """

    chip: str
    generation: str | None
    variant: str | None
    gpu_cores: int
    cpu_cores_performance: int | None
    cpu_cores_efficiency: int | None
    cpu_cores: int
    memory_bytes: int
    gpu_memory_bytes: int | None
    os_name: str
    os_version: str
    accelerator: Accelerator
    engine_accelerator: Accelerator
    sources: dict[str, str] = field(default_factory=dict)
    overridden: bool = False


@dataclass(frozen=True, slots=True)
class GpuReading:
    """A GPU at one moment; ``None`` stands for a value that its driver does not give."""

    busy_percent: float | None = None
    memory_used_bytes: int | None = None

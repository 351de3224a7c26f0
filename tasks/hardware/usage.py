"""The current use of this machine: processor, memory, GPU, and the shares of the worker and its engines."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tasks.hardware.apple import IOREG, QUICK_TIMEOUT_S, answer, parse_accelerator
from tasks.hardware.cgroup import Cgroup
from tasks.hardware.gauge import Gauge
from tasks.hardware.machine import this_machine
from tasks.hardware.nvidia import NvidiaGpu
from tasks.hardware.record import GpuReading

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tasks.hardware.machine import Machine
    from tasks.messages.engine import StepOutput
    from worker_config.settings import Settings

GPU_EVERY_S = 2.0
#: Kernels count processor time in hundredths of a second, so a shorter window says little.
SHORTEST_WINDOW_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """One look at a machine. Percentages are 0–100 of the whole machine (or container); ``None`` is not known.

    Memory is psutil's notion: ``available`` is what programs can have without swapping, ``used`` is not ``total`` minus
    "free". Under a memory limit they are the control group's, without the file cache that the kernel would drop.
    ``engines`` maps a process id to the bytes it holds; one that has ended is left out. The three ``mlx`` figures are
    the sums of what the engines reported.
    """

    cpu_percent: float | None
    memory_used_bytes: int
    memory_available_bytes: int
    memory_total_bytes: int
    worker_rss_bytes: int
    engines: dict[int, int] = field(default_factory=dict)
    gpu_percent: float | None = None
    gpu_memory_used_bytes: int | None = None
    mlx_active_bytes: int | None = None
    mlx_cache_bytes: int | None = None
    mlx_peak_bytes: int | None = None


class UsageSampler:
    """Takes :class:`Usage` samples without waiting for anything; make it when the worker starts.

    The processor's figure covers the time since the sample before, or since the sampler was made.
    """

    def __init__(self, settings: Settings, machine: Machine | None = None) -> None:
        import psutil

        self._psutil: Any = psutil
        self._process = psutil.Process()
        self._cgroup = Cgroup((machine or this_machine()).read)
        self._cpu = cpu_meter(self._cgroup)
        self._gpu = gpu_gauge(settings, machine or this_machine())

    def sample(self, engine_pids: Iterable[int] = (), steps: Iterable[StepOutput] = ()) -> Usage:
        """The machine now. Costs under 5 ms.

        Args:
            engine_pids: the engines' processes.
            steps: the last step of each engine, for MLX's own figures.
        """
        gpu = self._gpu.latest() or GpuReading()
        used, available, total = self._memory()
        last = tuple(steps)
        return Usage(
            cpu_percent=self._cpu.percent(),
            memory_used_bytes=used,
            memory_available_bytes=available,
            memory_total_bytes=total,
            worker_rss_bytes=self._process.memory_info().rss,
            engines=self._resident(engine_pids),
            gpu_percent=gpu.busy_percent,
            gpu_memory_used_bytes=gpu.memory_used_bytes,
            mlx_active_bytes=total_known(step.active_bytes for step in last),
            mlx_cache_bytes=total_known(step.cache_bytes for step in last),
            mlx_peak_bytes=total_known(step.peak_bytes for step in last),
        )

    def _memory(self) -> tuple[int, int, int]:
        host = self._psutil.virtual_memory()
        level = self._cgroup.tightest_memory()
        if level is None or level.limit_bytes >= host.total:
            return host.used, host.available, host.total
        return level.used_bytes, min(host.available, max(0, level.limit_bytes - level.used_bytes)), level.limit_bytes

    def _resident(self, pids: Iterable[int]) -> dict[int, int]:
        resident: dict[int, int] = {}
        for pid in pids:
            try:
                resident[pid] = self._psutil.Process(pid).memory_info().rss
            except self._psutil.Error:
                continue
        return resident


class CpuMeter:
    """A meter of the share of time in which processors were busy between two readings of a counter.

    Args:
        read: busy seconds and the seconds there were in all, both counted from any fixed moment.
        first: the answer while the window is still too short to measure in.
        clock: seconds that only go up.
    """

    def __init__(
        self,
        read: Callable[[], tuple[float, float]],
        first: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._clock = clock
        self._percent = first
        self._since = clock()
        self._busy_s, self._all_s = read()

    def percent(self) -> float | None:
        """0–100 since the last answer; the last answer again if that was less than a tenth of a second ago."""
        now = self._clock()
        if now - self._since < SHORTEST_WINDOW_S:
            return self._percent
        busy_s, all_s = self._read()
        if all_s > self._all_s:
            share = (busy_s - self._busy_s) / (all_s - self._all_s)
            self._percent = round(min(max(100 * share, 0.0), 100.0), 1)
        self._since, self._busy_s, self._all_s = now, busy_s, all_s
        return self._percent


def cpu_meter(cgroup: Cgroup) -> CpuMeter:
    """The meter of this machine's processors, or of the container's share where a quota leaves it less than all."""
    import psutil

    cpus = psutil.cpu_count() or 1
    limit = cgroup.cpu_limit()
    if limit is not None and limit < cpus and cgroup.cpu_seconds() is not None:
        return CpuMeter(lambda: (cgroup.cpu_seconds() or 0.0, time.monotonic() * limit), first=None)
    load = psutil.getloadavg()[0]
    return CpuMeter(lambda: _host_seconds(psutil.cpu_times()), first=round(min(100.0, 100 * load / cpus), 1))


def _host_seconds(times: Any) -> tuple[float, float]:
    # Linux counts a guest's time in "user" as well; waiting for a disk leaves the processor free.
    everything = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return everything - times.idle - getattr(times, "iowait", 0.0), everything


def gpu_gauge(settings: Settings, machine: Machine) -> Gauge[GpuReading]:
    """The gauge of this machine's GPU; it stays ``None`` where there is none or its driver is silent."""
    if machine.system == "Darwin":
        return Gauge(lambda: _macos_reading(machine), GPU_EVERY_S)
    return Gauge(_NvidiaReader(settings, machine), GPU_EVERY_S)


def _macos_reading(machine: Machine) -> GpuReading:
    gpu = parse_accelerator(answer(machine, IOREG, QUICK_TIMEOUT_S))
    return GpuReading(gpu.busy_percent, gpu.memory_used_bytes)


class _NvidiaReader:
    """Opens the driver at the first reading, on the gauge's thread: that can take a second."""

    def __init__(self, settings: Settings, machine: Machine) -> None:
        self._visible = settings.cuda_visible_devices
        self._machine = machine
        self._gpu: NvidiaGpu | None = None

    def __call__(self) -> GpuReading:
        if self._gpu is None:
            self._gpu = NvidiaGpu(self._machine, self._visible)
        return self._gpu.reading()


def total_known(figures: Iterable[int | None]) -> int | None:
    """The sum of the figures that are known; ``None`` if none is."""
    known = [figure for figure in figures if figure is not None]
    return sum(known) if known else None

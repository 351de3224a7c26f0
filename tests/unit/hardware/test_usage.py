"""Live usage: processor, memory, GPU and the processes of a worker."""

from __future__ import annotations

import os
import threading

import psutil
import pytest

from tasks.hardware.cgroup import Cgroup
from tasks.hardware.gauge import STALE_AFTER_INTERVALS, Gauge
from tasks.hardware.machine import ProbeFailed
from tasks.hardware.record import GpuReading
from tasks.hardware.usage import CpuMeter, UsageSampler, total_known
from tasks.messages.engine import StepOutput
from tests.support import wait_until
from tests.unit.hardware.machines import GIB, FakeNvml, linux, mac, recording
from worker_config.settings import Settings

CONTAINER = {
    "/proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
    "/proc/self/cgroup": "0::/\n",
    "/sys/fs/cgroup/memory.max": "1000000\n",
    "/sys/fs/cgroup/memory.current": "900000\n",
    "/sys/fs/cgroup/memory.stat": "inactive_file 500000\n",
}


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def with_reading(sampler: UsageSampler) -> UsageSampler:
    """It has its first reading of the GPU, and no time passes for it."""
    sampler._gpu.wait(30)
    begun_at = sampler._gpu._begun_at
    sampler._gpu._clock = lambda: begun_at
    return sampler


def test_sample_of_this_machine() -> None:
    """A sample has the machine's memory and this process's own, and leaves out engines that have ended."""
    sampler = UsageSampler(Settings(), linux())
    usage = sampler.sample([os.getpid(), 2**22 + 1])
    assert usage.memory_total_bytes == psutil.virtual_memory().total
    assert 0 < usage.memory_available_bytes <= usage.memory_total_bytes
    assert usage.worker_rss_bytes > 1_000_000
    assert list(usage.engines) == [os.getpid()]
    assert usage.engines[os.getpid()] == pytest.approx(usage.worker_rss_bytes, rel=0.2)
    assert usage.cpu_percent is not None
    assert 0 <= usage.cpu_percent <= 100


def test_what_cannot_be_known_is_none() -> None:
    """Without a GPU and without an engine's word, the GPU's and MLX's figures are None and not zero."""
    sampler = with_reading(UsageSampler(Settings(), linux()))
    usage = sampler.sample()
    assert (usage.gpu_percent, usage.gpu_memory_used_bytes) == (None, None)
    assert (usage.mlx_active_bytes, usage.mlx_cache_bytes, usage.mlx_peak_bytes) == (None, None, None)


def test_mlx_figures_add_up_over_engines() -> None:
    """MLX's memory is the sum of what the engines said; an engine that said nothing adds nothing."""
    steps = [
        StepOutput(step=1, events=[], running=1, waiting=0, active_bytes=10, cache_bytes=1, peak_bytes=20),
        StepOutput(step=9, events=[], running=0, waiting=0, active_bytes=5, cache_bytes=None, peak_bytes=6),
        StepOutput(step=3, events=[], running=0, waiting=0),
    ]
    usage = UsageSampler(Settings(), linux()).sample(steps=steps)
    assert (usage.mlx_active_bytes, usage.mlx_cache_bytes, usage.mlx_peak_bytes) == (15, 1, 26)
    assert total_known([]) is None


def test_memory_of_a_container_is_its_own() -> None:
    """Under a memory limit total, used and available are the container's, without the cache that can be dropped."""
    usage = UsageSampler(Settings(), linux(CONTAINER)).sample()
    assert usage.memory_total_bytes == 1_000_000
    assert usage.memory_used_bytes == 400_000
    assert usage.memory_available_bytes == 600_000


def test_gpu_of_a_mac_comes_from_the_registry() -> None:
    """On a Mac the GPU's figures are those that its driver publishes."""
    programs = recording("m4")
    sampler = with_reading(UsageSampler(Settings(), mac(programs)))
    usage = sampler.sample()
    assert (usage.gpu_percent, usage.gpu_memory_used_bytes) == (30.0, 356_089_856)
    sampler.sample()
    assert programs.asked == ["ioreg"], "once in two seconds is enough"


def test_gpu_of_nvidia_comes_from_nvml() -> None:
    """On an NVIDIA machine the GPU's figures are NVML's, which is opened once."""
    opened: list[FakeNvml] = []

    def nvml() -> FakeNvml:
        opened.append(FakeNvml())
        return opened[-1]

    sampler = with_reading(UsageSampler(Settings(), linux(nvml=nvml)))
    usage = sampler.sample()
    assert (usage.gpu_percent, usage.gpu_memory_used_bytes) == (37.0, 3 * GIB)
    assert sampler._gpu._read() == GpuReading(37.0, 3 * GIB)
    assert len(opened) == 1


def test_first_processor_figure_covers_the_time_since_the_start() -> None:
    """The first answer is measured from the sampler's making, not a zero and not a wait."""
    clock, readings = Clock(), [(10.0, 100.0), (11.0, 102.0)]
    meter = CpuMeter(lambda: readings.pop(0), first=3.0, clock=clock)
    clock.now_s += 1.0
    assert meter.percent() == 50.0


def test_processor_figure_of_a_short_window_is_the_last_one() -> None:
    """Asked again at once, the meter repeats its answer; its first is the load of the last minute."""
    clock, readings = Clock(), [(0.0, 0.0), (1.0, 4.0), (9.0, 12.0)]
    meter = CpuMeter(lambda: readings.pop(0), first=3.0, clock=clock)
    clock.now_s += 0.05
    assert meter.percent() == 3.0
    clock.now_s += 1.0
    assert meter.percent() == 25.0
    assert meter.percent() == 25.0
    clock.now_s += 1.0
    assert meter.percent() == 100.0


def test_processor_figure_stays_where_the_counter_does() -> None:
    """A counter that does not move, or goes back, neither divides by zero nor leaves 0–100."""
    clock, readings = Clock(), [(5.0, 10.0), (5.0, 10.0), (4.0, 11.0)]
    meter = CpuMeter(lambda: readings.pop(0), first=None, clock=clock)
    clock.now_s += 1.0
    assert meter.percent() is None
    clock.now_s += 1.0
    assert meter.percent() == 0.0


def test_processors_of_a_host_are_busy_without_idle_and_guests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for a disk is not busy, and a guest's time is counted once."""
    from tasks.hardware import usage

    class Times(tuple[float, ...]):
        __slots__ = ()
        idle, iowait, guest, guest_nice = 50.0, 10.0, 20.0, 0.0

    assert usage._host_seconds(Times((40.0, 50.0, 10.0, 20.0, 0.0))) == (40.0, 100.0)
    monkeypatch.setattr(psutil, "getloadavg", lambda: (99.0, 0.0, 0.0))
    meter = usage.cpu_meter(Cgroup(lambda _: ""))
    assert meter._percent == 100.0


def test_processors_of_a_container_are_its_quota() -> None:
    """With a quota the figure is the group's share of that quota, and not known before it is measured."""
    from tasks.hardware import usage

    files = {**CONTAINER, "/sys/fs/cgroup/cpu.max": "50000 100000\n", "/sys/fs/cgroup/cpu.stat": "usage_usec 0\n"}
    meter = usage.cpu_meter(Cgroup(lambda path: files.get(path, "")))
    assert meter.percent() is None
    assert meter._read()[0] == 0.0
    files["/sys/fs/cgroup/cpu.stat"] = "usage_usec 2000000\n"
    assert meter._read()[0] == 2.0


def test_gauge_never_waits_for_a_slow_reading() -> None:
    """While a reading hangs the gauge answers None, and does not begin a second one."""
    release, begun = threading.Event(), []

    def read() -> int:
        begun.append(1)
        release.wait(60)
        return 7

    clock = Clock()
    gauge: Gauge[int] = Gauge(read, every_s=1.0, clock=clock)
    try:
        clock.now_s += 10.0
        assert gauge.latest() is None
        assert len(begun) == 1
    finally:
        release.set()
    assert wait_until(gauge.latest) == 7


def test_gauge_reads_no_more_often_than_it_should() -> None:
    """Between two readings there is the interval, and a value that is too old is not shown."""
    clock, readings = Clock(), [1, 2]
    gauge: Gauge[int] = Gauge(lambda: readings.pop(0), every_s=2.0, clock=clock)
    gauge.wait(30)
    assert gauge.latest() == 1
    clock.now_s += 1.9
    assert gauge.latest() == 1
    assert readings == [2]
    clock.now_s += 2.0 * STALE_AFTER_INTERVALS
    gauge.latest()
    gauge.wait(30)
    assert gauge.latest() == 2


def test_gauge_hides_a_stale_value() -> None:
    """When readings hang for long, the last value is no longer shown as if it were true."""
    clock, release, count = Clock(), threading.Event(), []

    def read() -> int:
        count.append(1)
        if len(count) > 1:
            release.wait(60)
        return 1

    gauge: Gauge[int] = Gauge(read, every_s=1.0, clock=clock)
    gauge.wait(30)
    try:
        clock.now_s += 1.5
        assert gauge.latest() == 1
        clock.now_s += STALE_AFTER_INTERVALS
        assert gauge.latest() is None
    finally:
        release.set()
        gauge.wait(30)


def test_gauge_without_anything_to_read_stops_asking() -> None:
    """Where there is no GPU the gauge asks once and never again."""
    clock, asked = Clock(), []

    def read() -> int:
        asked.append(1)
        raise ProbeFailed("no GPU")

    gauge: Gauge[int] = Gauge(read, every_s=1.0, clock=clock)
    gauge.wait(30)
    clock.now_s += 100.0
    assert gauge.latest() is None
    assert len(asked) == 1

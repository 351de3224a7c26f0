"""Overrides, and detection on Linux, in containers and on NVIDIA machines."""

from __future__ import annotations

import pytest

from tasks.hardware import detect
from tasks.hardware.chips import GPU_CORES, apple_chip
from tasks.hardware.record import GpuReading
from tests.unit.hardware.machines import GIB, FakeNvml, linux, mac, recording
from worker_config.environment import SettingError
from worker_config.settings import Settings

DEBIAN = '# a comment\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\n'
CPUINFO = "processor\t: 0\nmodel name\t: AMD EPYC 7B13\nflags\t\t: fpu vme\n"
V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


def container(**limits: str) -> dict[str, str]:
    """The files of a version 2 container in its own namespace."""
    return {
        "/proc/self/mountinfo": V2_MOUNT,
        "/proc/self/cgroup": "0::/\n",
        **{f"/sys/fs/cgroup/{name.replace('_', '.')}": value for name, value in limits.items()},
    }


def test_linux_host() -> None:
    """A Linux host is its processor, its distribution and its memory, and claims no Apple cores."""
    hardware = detect(Settings(), linux({"/etc/os-release": DEBIAN, "/proc/cpuinfo": CPUINFO}))
    assert (hardware.chip, hardware.sources["chip"]) == ("AMD EPYC 7B13", "proc")
    assert (hardware.os_name, hardware.os_version) == ("Debian GNU/Linux", "12")
    assert (hardware.memory_bytes, hardware.cpu_cores) == (64 * GIB, 16)
    assert (hardware.cpu_cores_performance, hardware.cpu_cores_efficiency, hardware.variant) == (None, None, None)
    assert (hardware.accelerator, hardware.gpu_cores, hardware.gpu_memory_bytes) == ("cpu", 0, None)


@pytest.mark.parametrize("release", ["", 'NAME="no end'])
def test_linux_without_names(release: str) -> None:
    """Where neither the processor nor the system has a name, the architecture and the kernel's name stand in."""
    hardware = detect(Settings(), linux({"/usr/lib/os-release": release}))
    assert (hardware.chip, hardware.os_name, hardware.os_version) == ("Linux x86_64", "Linux", "unknown")


def test_container_is_as_large_as_its_limits() -> None:
    """A container of 2 GB and 1.5 processors on a host of 64 GB and 16 is a machine of 2 GB and one processor."""
    files = container(memory_max="2147483648\n", cpu_max="150000 100000\n")
    hardware = detect(Settings(), linux(files))
    assert (hardware.memory_bytes, hardware.sources["memory_bytes"]) == (2 * GIB, "cgroup")
    assert (hardware.cpu_cores, hardware.sources["cpu_cores"]) == (1, "cgroup")


def test_container_without_limits_is_its_host() -> None:
    """Limits that are absent, or above what the host has, change nothing."""
    files = container(memory_max="999999999999999\n", cpu_max="max 100000\n")
    hardware = detect(Settings(), linux(files))
    assert (hardware.memory_bytes, hardware.sources["memory_bytes"]) == (64 * GIB, "psutil")
    assert (hardware.cpu_cores, hardware.sources["cpu_cores"]) == (16, "affinity")


def test_sliver_of_a_processor_is_one() -> None:
    """A quota below one processor counts as one."""
    assert detect(Settings(), linux(container(cpu_max="20000 100000\n"))).cpu_cores == 1


def test_nvidia_gpu() -> None:
    """An NVIDIA machine is its GPU: name, multiprocessors and the GPU's own memory beside the host's."""
    hardware = detect(Settings(), linux({"/proc/cpuinfo": CPUINFO}, nvml=FakeNvml))
    assert (hardware.chip, hardware.accelerator) == ("NVIDIA H100 80GB HBM3", "cuda")
    assert (hardware.gpu_cores, hardware.gpu_memory_bytes) == (132, 80 * GIB)
    assert hardware.memory_bytes == 64 * GIB
    assert hardware.sources["gpu_cores"] == hardware.sources["gpu_memory_bytes"] == "nvml"


def test_nvidia_gpu_that_does_not_say() -> None:
    """What a GPU does not support is unknown, and the processor's name does not become the GPU's memory."""
    silent = frozenset({"nvmlDeviceGetMemoryInfo", "nvmlDeviceGetNumGpuCores", "nvmlDeviceGetName"})
    hardware = detect(Settings(), linux({"/proc/cpuinfo": CPUINFO}, nvml=lambda: FakeNvml(silent=silent)))
    assert (hardware.accelerator, hardware.gpu_cores, hardware.gpu_memory_bytes) == ("cuda", 0, None)
    assert hardware.chip == "AMD EPYC 7B13"


def test_older_nvidia_gpus_have_smaller_multiprocessors() -> None:
    """An A100 has 6,912 CUDA cores in 108 multiprocessors of 64."""
    from tasks.hardware.nvidia import NvidiaGpu

    class A100(FakeNvml):
        def nvmlDeviceGetNumGpuCores(self, handle: object) -> int:  # noqa: N802 -- NVIDIA's name
            return 6912

        def nvmlDeviceGetCudaComputeCapability(self, handle: object) -> tuple[int, int]:  # noqa: N802
            return 8, 0

    assert NvidiaGpu(linux(nvml=A100)).multiprocessors() == 108


@pytest.mark.parametrize(
    ("visible", "accelerator"),
    [("", "cuda"), ("1", "cuda"), ("1,0", "cuda"), ("GPU-8f3a", "cuda"), ("7", "cpu"), ("-1", "cpu"), ("none", "cpu")],
)
def test_only_visible_nvidia_gpus_count(visible: str, accelerator: str) -> None:
    """CUDA_VISIBLE_DEVICES decides which GPU is meant, and can hide them all."""
    settings = Settings(cuda_visible_devices=visible)
    assert detect(settings, linux(nvml=lambda: FakeNvml(gpus=2))).accelerator == accelerator


def test_nvidia_without_a_driver() -> None:
    """A machine with NVIDIA's library and no driver computes on its processor."""
    assert detect(Settings(), linux(nvml=lambda: FakeNvml(driver=False))).accelerator == "cpu"


def test_nvidia_reading() -> None:
    """A reading has the busy share and the memory in use of the GPU."""
    from tasks.hardware.nvidia import NvidiaGpu

    assert NvidiaGpu(linux(nvml=FakeNvml)).reading() == GpuReading(37.0, 3 * GIB)
    silent = frozenset({"nvmlDeviceGetMemoryInfo", "nvmlDeviceGetUtilizationRates"})
    assert NvidiaGpu(linux(nvml=lambda: FakeNvml(silent=silent))).reading() == GpuReading(None, None)


@pytest.mark.parametrize(
    ("chip", "memory_gb", "name", "variant", "gpu_cores"),
    [
        ("Apple M1", 16, "Apple M1", "Base", 7),
        ("m2 pro", 32, "Apple M2 Pro", "Pro", 16),
        ("M3  Ultra", 192, "Apple M3 Ultra", "Ultra", 60),
    ],
)
def test_overridden_chip_is_a_mac(chip: str, memory_gb: float, name: str, variant: str, gpu_cores: int) -> None:
    """An overridden chip makes any machine that Mac, with the GPU cores of the table, and says so."""
    hardware = detect(Settings(chip=chip, memory_gb=memory_gb), linux(nvml=FakeNvml))
    assert (hardware.chip, hardware.variant, hardware.gpu_cores) == (name, variant, gpu_cores)
    assert (hardware.accelerator, hardware.memory_bytes) == ("metal", memory_gb * GIB)
    assert hardware.gpu_memory_bytes is None
    assert hardware.overridden
    assert {hardware.sources[source] for source in ("chip", "variant", "accelerator", "memory_bytes")} == {"override"}
    assert hardware.sources["gpu_cores"] == "table"


def test_an_overridden_chip_does_not_compute() -> None:
    """Tiers follow the override; what MLX computes on stays the real machine's, or a CPU's weights would be miscounted."""
    on_cpu = detect(Settings(chip="M3 Ultra"), linux())
    assert (on_cpu.accelerator, on_cpu.engine_accelerator) == ("metal", "cpu")
    on_nvidia = detect(Settings(chip="M3 Ultra"), linux(nvml=FakeNvml))
    assert (on_nvidia.accelerator, on_nvidia.engine_accelerator) == ("metal", "cuda")
    on_mac = detect(Settings(chip="M1"), mac(recording("m4-max")))
    assert (on_mac.accelerator, on_mac.engine_accelerator) == ("metal", "metal")
    bare = detect(Settings(), linux(nvml=FakeNvml))
    assert (bare.accelerator, bare.engine_accelerator) == ("cuda", "cuda")


def test_overrides_on_a_real_mac() -> None:
    """On a Mac the overridden chip's GPU cores do not come from the GPU underneath, and an overridden count wins."""
    assert detect(Settings(chip="M1"), mac(recording("m4-max"))).gpu_cores == 7
    hardware = detect(Settings(gpu_cores=12), mac(recording("m4-max")))
    assert (hardware.chip, hardware.gpu_cores, hardware.sources["gpu_cores"]) == ("Apple M4 Max", 12, "override")
    smaller = detect(Settings(memory_gb=16), mac(recording("m4-max")))
    assert (smaller.memory_bytes, smaller.gpu_memory_bytes) == (16 * GIB, None)


def test_overridden_memory_is_also_the_gpus() -> None:
    """On a machine whose GPU has its own memory, the override sets what models can be served from."""
    hardware = detect(Settings(memory_gb=24), linux(nvml=FakeNvml))
    assert (hardware.gpu_memory_bytes, hardware.sources["gpu_memory_bytes"]) == (24 * GIB, "override")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings(chip="Pentium"), ("CELERY_MLX_CHIP", "'Pentium'", "Apple M2 Pro")),
        (Settings(chip="Apple M2 Extreme"), ("CELERY_MLX_CHIP", "Extreme")),
        (Settings(gpu_cores=-1), ("CELERY_MLX_GPU_CORES", "-1")),
        (Settings(gpu_cores=100_000), ("CELERY_MLX_GPU_CORES", "100000", "1024")),
        (Settings(memory_gb=34_359_738_368), ("CELERY_MLX_MEMORY_GB", "gigabytes")),
        (Settings(memory_gb=float("nan")), ("CELERY_MLX_MEMORY_GB", "nan")),
    ],
)
def test_bad_overrides_are_refused(settings: Settings, words: tuple[str, ...]) -> None:
    """An override that cannot be is one error, which names the variable and the value."""
    with pytest.raises(SettingError) as caught:
        detect(settings, linux())
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


def test_every_record_names_all_its_sources() -> None:
    """Each field of a record has a source, whatever the machine."""
    for hardware in (detect(Settings(), linux()), detect(Settings(), mac(recording("m4")))):
        fields = set(type(hardware).__dataclass_fields__) - {"sources", "overridden"}
        assert set(hardware.sources) == fields


def test_table_of_chips_is_sound() -> None:
    """Every chip of the table is found by its own name, and an Ultra has at most twice the cores of its Max."""
    for (generation, variant), sold in GPU_CORES.items():
        chip = apple_chip(f"Apple {generation} {variant}".removesuffix(" Base"))
        assert chip is not None
        assert chip.fewest_gpu_cores == min(sold)
        assert (variant == "Base") == (chip.name == f"Apple {generation}")
        if variant == "Ultra":
            assert max(sold) <= 2 * max(GPU_CORES[generation, "Max"])
    assert apple_chip("Apple M4 Ultra") is not None
    assert ("M4", "Ultra") not in GPU_CORES

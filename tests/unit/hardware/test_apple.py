"""Detection on Macs, from recorded outputs."""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest

from tasks.hardware import Hardware, detect
from tasks.hardware.apple import parse_accelerator, parse_displays, parse_lines
from tasks.hardware.machine import ProbeFailed
from tests.unit.hardware.machines import GIB, Programs, mac, recording
from worker_config.settings import Settings

HANG = ProbeFailed("it did not end within 5 s")
NO_ANSWER = ["", "garbage", "[]", "{}", '{"SPDisplaysDataType": 7}', '{"SPDisplaysDataType": [7]}']


def detected(programs: Programs) -> Hardware:
    return detect(Settings(), mac(programs))


class Sold(NamedTuple):
    """A Mac as its owner bought it, and who counts its GPU cores."""

    chip: str
    variant: str
    gpu_cores: int
    counted_by: str
    performance: int
    efficiency: int
    memory_gib: int
    macos: str


MACS = {
    "m1": Sold("Apple M1", "Base", 8, "system_profiler", 4, 4, 16, "11.2.3"),
    "m1-7-core": Sold("Apple M1", "Base", 7, "system_profiler", 4, 4, 8, "14.4.1"),
    "m2-pro": Sold("Apple M2 Pro", "Pro", 19, "system_profiler", 8, 4, 32, "13.4"),
    "m3-max-30-core": Sold("Apple M3 Max", "Max", 30, "system_profiler", 10, 4, 36, "14.6.1"),
    "m4": Sold("Apple M4", "Base", 10, "ioreg", 4, 6, 24, "15.3.1"),
    "m4-max": Sold("Apple M4 Max", "Max", 40, "ioreg", 12, 4, 128, "15.5"),
    "m3-ultra": Sold("Apple M3 Ultra", "Ultra", 60, "system_profiler", 20, 8, 192, "15.4.1"),
    "m5-max": Sold("Apple M5 Max", "Max", 40, "ioreg", 6, 12, 128, "26.4"),
}


@pytest.mark.parametrize("name", MACS)
def test_recorded_macs_are_recognised(name: str) -> None:
    """Each recorded Mac is what its owner bought, and the record says who counted its GPU cores."""
    hardware, sold = detected(recording(name)), MACS[name]
    assert (hardware.chip, hardware.variant) == (sold.chip, sold.variant)
    assert hardware.generation == sold.chip.split()[1]
    assert (hardware.gpu_cores, hardware.sources["gpu_cores"]) == (sold.gpu_cores, sold.counted_by)
    assert (hardware.cpu_cores_performance, hardware.cpu_cores_efficiency) == (sold.performance, sold.efficiency)
    assert hardware.cpu_cores == sold.performance + sold.efficiency
    assert hardware.memory_bytes == sold.memory_gib * GIB
    assert (hardware.os_name, hardware.os_version) == ("macOS", sold.macos)
    assert hardware.accelerator == "metal"
    assert not hardware.overridden


@pytest.mark.parametrize("name", ["m4", "m4-max", "m5-max"])
def test_the_two_sources_of_gpu_cores_agree(name: str) -> None:
    """Where the I/O registry is silent, system_profiler counts the same GPU cores."""
    quick = detected(recording(name))
    slow = detected(recording(name, ioreg=""))
    assert (quick.gpu_cores, slow.sources["gpu_cores"]) == (slow.gpu_cores, "system_profiler")


def test_slow_program_is_asked_only_if_needed_and_once() -> None:
    """system_profiler runs at most once, and not at all where the I/O registry has answered."""
    quick, slow = recording("m4"), recording("m2-pro")
    detected(quick)
    detected(slow)
    assert "system_profiler" not in quick.asked
    assert slow.asked.count("system_profiler") == 1


def test_wired_limit_is_the_gpu_memory() -> None:
    """A wired limit that somebody has set is the GPU's memory; the default of 0 is not known, not zero."""
    assert detected(recording("m4-max")).gpu_memory_bytes == 114_688 * 1024**2
    default = detected(recording("m4"))
    assert (default.gpu_memory_bytes, default.sources["gpu_memory_bytes"]) == (None, "unknown")


@pytest.mark.parametrize(("name", "cores"), [("virtual-machine", 7), ("paravirtual", 16)])
def test_virtual_machine_falls_back_to_the_table(name: str, cores: int) -> None:
    """A virtual Mac without a countable GPU counts as the smallest chip of its name, marked as taken from the table."""
    hardware = detected(recording(name))
    assert (hardware.gpu_cores, hardware.sources["gpu_cores"]) == (cores, "table")
    assert hardware.chip.endswith("(Virtual)")
    assert hardware.cpu_cores_efficiency is None
    assert hardware.sources["cpu_cores_efficiency"] == "unknown"


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "garbage",
        "[]",
        "{}",
        '{"SPDisplaysDataType": 7}',
        '{"SPDisplaysDataType": [7]}',
        HANG,
        ProbeFailed("absent"),
    ],
)
def test_gpu_answers_that_are_none_fall_back_to_the_table(answer: str | Exception) -> None:
    """Garbage, empty output, a missing program and a hang all end at the table, without an error."""
    hardware = detected(recording("m2-pro", ioreg=answer, system_profiler=answer))
    assert (hardware.gpu_cores, hardware.sources["gpu_cores"]) == (16, "table")


@pytest.mark.parametrize("chip", ["Apple M9 Extreme", "Apple M77 Max", "Apple A18 Pro", "Apple processor"])
def test_unknown_chip_counts_as_eight_cores(chip: str) -> None:
    """A chip that the table does not have counts as 8 GPU cores, marked as unknown."""
    hardware = detected(Programs({"sysctl": f"machdep.cpu.brand_string: {chip}\n"}))
    assert (hardware.chip, hardware.gpu_cores, hardware.sources["gpu_cores"]) == (chip, 8, "unknown")


@pytest.mark.parametrize("sysctl", ["", "garbage", "\x00\n:::\nhw.memsize: many\nhw.logicalcpu: -3\n", HANG])
def test_mac_without_sysctl_is_what_others_say(sysctl: str | Exception) -> None:
    """Without sysctl the chip comes from system_profiler, memory and cores from psutil, and nothing is made up."""
    hardware = detected(recording("m3-max-30-core", sysctl=sysctl))
    assert (hardware.chip, hardware.sources["chip"], hardware.gpu_cores) == ("Apple M3 Max", "system_profiler", 30)
    assert (hardware.memory_bytes, hardware.sources["memory_bytes"]) == (GIB, "psutil")
    assert (hardware.cpu_cores, hardware.cpu_cores_performance) == (1, None)


def test_mute_mac_is_unknown_but_whole() -> None:
    """A Mac on which no program answers still has a record, whose sources say that nothing is known."""
    hardware = detected(Programs({}))
    assert (hardware.chip, hardware.gpu_cores, hardware.os_version) == ("unknown", 8, "unknown")
    assert {hardware.sources[name] for name in ("chip", "gpu_cores", "os_version", "variant")} == {"unknown"}
    assert hardware.accelerator == "metal"


def test_intel_mac_has_no_accelerator() -> None:
    """On an Intel Mac, whose GPU MLX cannot use, nobody asks for GPU cores."""
    programs = recording("intel-mac")
    hardware = detect(Settings(), mac(programs, architecture="x86_64"))
    assert (hardware.accelerator, hardware.gpu_cores, hardware.variant) == ("cpu", 0, None)
    assert hardware.cpu_cores == 12
    assert "ioreg" not in programs.asked


def test_third_kind_of_core_is_the_efficient_one() -> None:
    """With three levels of cores the fastest are the performance cores and the slowest the efficiency cores."""
    levels = "hw.perflevel0.logicalcpu: 2\nhw.perflevel1.logicalcpu: 6\nhw.perflevel2.logicalcpu: 4\n"
    hardware = detected(Programs({"sysctl": levels}))
    assert (hardware.cpu_cores_performance, hardware.cpu_cores_efficiency) == (2, 4)


def test_external_gpu_and_displays_are_not_the_chip() -> None:
    """Entries of other makers are passed over, wherever they stand in the list."""
    entries = [{"sppci_model": "AMD Radeon Pro", "sppci_cores": "64"}, {"sppci_model": "Apple M2", "sppci_cores": "10"}]
    assert parse_displays(json.dumps({"SPDisplaysDataType": entries})) == ("Apple M2", 10)
    assert parse_displays(json.dumps({"SPDisplaysDataType": entries[:1]})) == (None, None)


def test_accelerator_is_read_by_exact_names() -> None:
    """Memory in use is not the driver's share of it, and a percentage beyond 100 is not believed."""
    text = '"In use system memory (driver)"=5,"Device Utilization %"=37.5,"In use system memory"=7'
    reading = parse_accelerator(text)
    assert (reading.busy_percent, reading.memory_used_bytes, reading.gpu_cores) == (37.5, 7, None)
    assert parse_accelerator('"Device Utilization %"=101').busy_percent is None


def test_lines_without_a_value_are_no_answer() -> None:
    """A name that sysctl prints without a value counts as not answered."""
    assert parse_lines("a: 1\nb:\nc\n: d: e\n") == {"a": "1", "": "d: e"}

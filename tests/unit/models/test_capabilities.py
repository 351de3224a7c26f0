from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.hardware.record import Hardware
from tasks.models.capabilities import capabilities, memory_budget_bytes, shortfall, slots_for
from tests.unit.machines import FakeMachine, cpu, cuda, mac
from worker_config.tiers import TIERS, tier_named
from worker_config.units import GIB

if TYPE_CHECKING:
    from tasks.models.capabilities import Capabilities

ALL = ["<3B", "3-7B", "7-13B", "13-27B", "30B+"]

machines = st.builds(
    FakeMachine,
    accelerator=st.sampled_from(["metal", "cuda", "cpu"]),
    variant=st.sampled_from(["Base", "Pro", "Max", "Ultra", None, "Hyper"]),
    gpu_cores=st.integers(0, 100),
    memory_bytes=st.integers(0, 1024 * GIB),
    gpu_memory_bytes=st.none() | st.integers(0, 1024 * GIB),
)


def offered(found: Capabilities) -> dict[str, int]:
    return {offer.tier.name: offer.slots for offer in found.tiers}


@pytest.mark.parametrize(
    ("machine", "tiers"),
    [
        (mac("Base", 8, 16), {"<3B": 10}),
        (mac("Base", 10, 8), {"<3B": 10, "3-7B": 8}),
        (mac("Base", 10, 24), {"<3B": 10, "3-7B": 8}),
        (mac("Pro", 14, 32), {"<3B": 15, "3-7B": 12}),
        (mac("Pro", 16, 16), {"<3B": 15, "3-7B": 12, "7-13B": 9}),
        (mac("Pro", 19, 32), {"<3B": 15, "3-7B": 12, "7-13B": 9}),
        (mac("Pro", 20, 48), {"<3B": 15, "3-7B": 12, "7-13B": 9, "13-27B": 5}),
        (mac("Max", 24, 64), {"<3B": 25, "3-7B": 20, "7-13B": 15, "13-27B": 8}),
        (mac("Max", 30, 96), {"<3B": 25, "3-7B": 20, "7-13B": 15, "13-27B": 8, "30B+": 3}),
        (mac("Ultra", 60, 192), {"<3B": 40, "3-7B": 32, "7-13B": 24, "13-27B": 12, "30B+": 4}),
    ],
)
def test_a_mac_gets_what_its_cores_and_memory_carry(machine: FakeMachine, tiers: dict[str, int]) -> None:
    """Real chips get their tiers, with slots for each tier by variant and none from another tier's figure."""
    assert offered(capabilities(machine)) == tiers


@pytest.mark.parametrize(
    ("machine", "largest"),
    [
        (cuda(8 * GIB), "3-7B"),
        (cuda(15360 * 1024**2), "7-13B"),
        (cuda(23028 * 1024**2), "7-13B"),
        (cuda(32 * GIB), "13-27B"),
        (cuda(81559 * 1024**2), "30B+"),
        (cuda(2 * GIB, memory_gb=512), "<3B"),
        (cuda(None, memory_gb=120), "30B+"),
    ],
)
def test_an_nvidia_machine_counts_by_its_gpu_memory(machine: FakeMachine, largest: str) -> None:
    """Cores do not matter there; a card with ECC counts as the size it is sold as; unified memory is the machine's."""
    assert list(offered(capabilities(machine)))[-1] == largest


def test_a_machine_without_gpu_serves_the_smallest_tier_alone() -> None:
    """However much memory it has; and it says why."""
    found = capabilities(cpu(512))
    assert offered(found) == {"<3B": 10}
    assert found.why_not_next == "3-7B needs a GPU, this machine has none"


@pytest.mark.parametrize("memory_gb", [15.0, 15.26, 16.0])
def test_a_machine_sold_as_16_gb_meets_a_floor_of_16(memory_gb: float) -> None:
    """What the kernel keeps, and decimal gigabytes, do not cost a tier."""
    assert "7-13B" in offered(capabilities(mac("Pro", 16, memory_gb)))


def test_12_gb_do_not_meet_a_floor_of_16() -> None:
    """The allowance is for reporting, not for less memory."""
    assert "7-13B" not in offered(capabilities(mac("Pro", 16, 12)))


def test_why_not_next_names_all_that_is_missing() -> None:
    """The next tier, its demands, and what there is."""
    assert capabilities(mac("Base", 10, 16)).why_not_next == "7-13B needs 15 GPU cores, this machine has 10"
    assert capabilities(mac("Base", 10, 8)).why_not_next == (
        "7-13B needs 15 GPU cores, this machine has 10 and 16 GB of memory, this machine has 8"
    )
    assert "16 GB of GPU memory" in capabilities(cuda(8 * GIB)).why_not_next
    assert capabilities(mac("Ultra", 80, 512)).why_not_next == ""


def test_the_budget_is_80_percent_or_the_limit_of_the_gpu() -> None:
    """A wired limit binds on Metal where it is less; a CUDA budget comes out of the card, not of the host."""
    assert memory_budget_bytes(mac("Max", 40, 100)) == 80 * GIB
    assert memory_budget_bytes(FakeMachine("metal", "Max", 40, 100 * GIB, 64 * GIB)) == 64 * GIB
    assert memory_budget_bytes(FakeMachine("metal", "Max", 40, 100 * GIB, 96 * GIB)) == 80 * GIB
    assert memory_budget_bytes(cuda(10 * GIB, memory_gb=500)) == 8 * GIB


def test_slots_exist_for_a_tier_that_was_ordered_with_q() -> None:
    """A tier beyond the hardware still has its slots, and its shortfall is said."""
    large = tier_named("13-27B")
    assert slots_for(cpu(16), large) == 3
    assert shortfall(cpu(16), large)


def test_the_hardware_record_is_a_machine() -> None:
    """What detection finds is what capabilities ask for."""
    hardware = Hardware(
        chip="Apple M2 Pro",
        generation="M2",
        variant="Pro",
        gpu_cores=19,
        cpu_cores_performance=8,
        cpu_cores_efficiency=4,
        cpu_cores=12,
        memory_bytes=32 * GIB,
        gpu_memory_bytes=None,
        os_name="macOS",
        os_version="15.5",
        accelerator="metal",
        engine_accelerator="metal",
    )
    assert offered(capabilities(hardware)) == {"<3B": 15, "3-7B": 12, "7-13B": 9}


@given(machines)
def test_capabilities_hold_for_any_machine(machine: FakeMachine) -> None:
    """Tiers have no gap, slots are within bounds, the sum is the concurrency, and a reason stands where tiers end."""
    found = capabilities(machine)
    names = [offer.tier.name for offer in found.tiers]
    assert names == ALL[: len(names)]
    assert names
    assert all(offer.tier.slots_min <= offer.slots <= offer.tier.slots_max for offer in found.tiers)
    assert found.concurrency == sum(found.slots_by_queue.values())
    assert bool(found.why_not_next) == (len(names) < len(TIERS))
    assert 0 <= found.memory_budget_bytes <= max(machine.memory_bytes, machine.gpu_memory_bytes or 0)


@given(machines, st.integers(0, 40), st.integers(0, 256))
def test_more_hardware_never_serves_less(machine: FakeMachine, cores: int, memory_gb: int) -> None:
    """Adding cores or memory keeps every tier."""
    gpu_memory = None if machine.gpu_memory_bytes is None else machine.gpu_memory_bytes + memory_gb * GIB
    larger = FakeMachine(
        machine.accelerator,
        machine.variant,
        machine.gpu_cores + cores,
        machine.memory_bytes + memory_gb * GIB,
        gpu_memory,
    )
    assert offered(capabilities(machine)).items() <= offered(capabilities(larger)).items()

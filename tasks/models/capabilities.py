"""The capabilities of a machine: its tiers, its slots in each, and its budget of bytes."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor
from typing import Protocol

from worker_config.tiers import CUDA_FACTOR, MEMORY_SHARE, MEMORY_TOLERANCE, TIERS, VARIANT_FACTOR, Tier
from worker_config.units import GIB


class Machine(Protocol):
    """The part of :class:`tasks.hardware.Hardware` that decides what a machine can carry."""

    @property
    def accelerator(self) -> str:
        """``metal``, ``cuda`` or ``cpu``."""

    @property
    def variant(self) -> str | None:
        """``Base``, ``Pro``, ``Max`` or ``Ultra``; anything else counts as ``Base``."""

    @property
    def gpu_cores(self) -> int:
        """Apple's GPU cores on Metal; other accelerators are not judged by theirs."""

    @property
    def memory_bytes(self) -> int:
        """Memory of the machine or of its container, whichever is smaller."""

    @property
    def gpu_memory_bytes(self) -> int | None:
        """The bytes that the GPU may use; ``None`` where it shares the machine's memory without a limit that is known."""


@dataclass(frozen=True, slots=True)
class TierOffer:
    """A tier that a machine serves, and how many of its requests at once."""

    tier: Tier
    slots: int


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The capabilities of a machine; ``-Q`` and ``-c`` change what its worker takes.

    Args:
        tiers: the offers, smallest tier first, without a gap.
        memory_budget_bytes: the most that weights and KV caches of all models may take together.
        why_not_next: a sentence about the machine's lack for the next tier; empty if it serves them all.
    """

    tiers: tuple[TierOffer, ...]
    memory_budget_bytes: int
    why_not_next: str

    @property
    def slots_by_queue(self) -> dict[str, int]:
        """Slots by the name of the tier's queue."""
        return {offer.tier.queue: offer.slots for offer in self.tiers}

    @property
    def concurrency(self) -> int:
        """Requests at once over all tiers: the sum, so that a full tier takes no slot from another."""
        return sum(offer.slots for offer in self.tiers)


def capabilities(machine: Machine) -> Capabilities:
    """The tiers that this machine serves, the slots in each, and its budget.

    A tier counts only if every smaller one does. Apple machines need the tier's GPU cores and memory; an NVIDIA machine
    needs the tier's memory on its GPU; a machine without a GPU serves ``<3B`` alone, since a larger model on a CPU
    answers more slowly than people read. ``-Q`` overrides each of these.
    """
    offers: list[TierOffer] = []
    why_not_next = ""
    for tier in TIERS:
        why_not_next = shortfall(machine, tier)
        if why_not_next:
            break
        offers.append(TierOffer(tier, slots_for(machine, tier)))
    return Capabilities(tuple(offers), memory_budget_bytes(machine), why_not_next)


def shortfall(machine: Machine, tier: Tier) -> str:
    """Describe what the machine lacks for a tier, as in ``7-13B needs 15 GPU cores, this machine has 10``; empty if nothing."""
    if machine.accelerator == "cpu" and (tier.gpu_cores or tier.memory_gb):
        return f"{tier.name} needs a GPU, this machine has none"
    lacks: list[str] = []
    if machine.accelerator == "metal" and machine.gpu_cores < tier.gpu_cores:
        lacks.append(f"{tier.gpu_cores} GPU cores, this machine has {machine.gpu_cores}")
    memory = _serving_memory_bytes(machine)
    if memory < tier.memory_gb * GIB * (1 - MEMORY_TOLERANCE):
        where = "GPU memory" if machine.accelerator == "cuda" else "memory"
        lacks.append(f"{tier.memory_gb} GB of {where}, this machine has {memory / GIB:.3g}")
    return f"{tier.name} needs {' and '.join(lacks)}" if lacks else ""


def slots_for(machine: Machine, tier: Tier) -> int:
    """Slots of a tier on this machine, served by default or because ``-Q`` says so: base × variant, half up, clamped."""
    factor = CUDA_FACTOR if machine.accelerator == "cuda" else VARIANT_FACTOR.get(machine.variant or "Base", 1.0)
    return min(max(floor(tier.slots * factor + 0.5), tier.slots_min), tier.slots_max)


def memory_budget_bytes(machine: Machine) -> int:
    """Bytes for weights and KV caches: 80 % of the memory, or the limit of a Metal device if that is less.

    On CUDA it is 80 % of the GPU's own memory: weights that do not fit there are not served from the host's.
    """
    budget = int(_serving_memory_bytes(machine) * MEMORY_SHARE)
    if machine.accelerator == "metal" and machine.gpu_memory_bytes:
        return min(budget, machine.gpu_memory_bytes)
    return budget


def _serving_memory_bytes(machine: Machine) -> int:
    if machine.accelerator == "cuda" and machine.gpu_memory_bytes is not None:
        return machine.gpu_memory_bytes
    return machine.memory_bytes

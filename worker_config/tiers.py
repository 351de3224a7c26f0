"""The tiers: which models are alike in size, which queue they wait in, and what a machine needs to serve them.

Change the table here and everything follows: routing, what a machine offers, ``doctor``, the table in docs/tiers.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from worker_config.environment import SettingError

if TYPE_CHECKING:
    from collections.abc import Mapping


#: The part of a machine's memory that weights and KV caches may take; the rest is the system's and the other programs'.
MEMORY_SHARE = 0.8

#: How far below a tier's floor a machine "sold as" that size may report. Decimal gigabytes are 6.9 % less than binary
#: ones, ECC takes 6.25 % of an NVIDIA card, and a Linux kernel keeps 2–6 % of a virtual machine for itself.
MEMORY_TOLERANCE = 0.07

#: The least memory that Apple has sold with its own chips, in GB: what the tier without a floor can count on.
SMALLEST_MEMORY_GB = 8


@dataclass(frozen=True, slots=True)
class Tier:
    """A class of model sizes.

    Args:
        name: its name for people, as in ``7-13B``.
        queue: the Celery queue of its requests; spelled so that a shell leaves it alone.
        parameters_from_b: the smallest model, in billions of parameters after rounding to the nearest whole one.
        gpu_cores: the fewest Apple GPU cores that serve it; 0 means any machine.
        memory_gb: the least memory, in the binary gigabytes that machines are sold by; 0 means any machine.
        slots: requests at once on a Base chip; a variant multiplies it by its :data:`VARIANT_FACTOR`.
        slots_min: the fewest slots of any variant.
        slots_max: the most slots of any variant.
    """

    name: str
    queue: str
    parameters_from_b: int
    gpu_cores: int
    memory_gb: int
    slots: int
    slots_min: int
    slots_max: int


#: Smallest first. "30B+" begins at 28, so that a "27B" of 27.4 billion stays where its name says.
TIERS: tuple[Tier, ...] = (
    Tier("<3B", "tier-under-3B", 0, gpu_cores=0, memory_gb=0, slots=10, slots_min=8, slots_max=60),
    Tier("3-7B", "tier-3-7B", 3, gpu_cores=10, memory_gb=8, slots=8, slots_min=6, slots_max=50),
    Tier("7-13B", "tier-7-13B", 7, gpu_cores=15, memory_gb=16, slots=6, slots_min=4, slots_max=40),
    Tier("13-27B", "tier-13-27B", 13, gpu_cores=20, memory_gb=32, slots=3, slots_min=2, slots_max=30),
    Tier("30B+", "tier-30B-plus", 28, gpu_cores=30, memory_gb=64, slots=1, slots_min=1, slots_max=20),
)

QUEUES: tuple[str, ...] = tuple(tier.queue for tier in TIERS)

#: The slots of the variants of one chip generation. They follow memory bandwidth, which bounds decoding.
VARIANT_FACTOR: Mapping[str, float] = MappingProxyType({"Base": 1.0, "Pro": 1.5, "Max": 2.5, "Ultra": 4.0})

#: NVIDIA GPUs have no variant. The slowest that carry 8 GB or more read memory about as fast as a Max (300–400 GB/s).
CUDA_FACTOR = VARIANT_FACTOR["Max"]

_BY_NAME = {tier.name: tier for tier in TIERS}
_BY_QUEUE = {tier.queue: tier for tier in TIERS}


def tier_named(name: str) -> Tier:
    """The tier of this name.

    Raises:
        SettingError: there is none; the message lists those that exist.
    """
    try:
        return _BY_NAME[name]
    except KeyError:
        raise SettingError(f"unknown tier {name!r}; the tiers are {', '.join(_BY_NAME)}") from None


def tier_of_queue(queue: str) -> Tier:
    """The tier whose requests wait in this queue.

    Raises:
        SettingError: no tier has this queue; the message lists those that exist.
    """
    try:
        return _BY_QUEUE[queue]
    except KeyError:
        raise SettingError(f"unknown tier queue {queue!r}; the queues are {', '.join(QUEUES)}") from None

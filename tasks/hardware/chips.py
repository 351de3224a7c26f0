"""Apple's chips: their names, and the GPU cores that each is sold with."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The GPU of a chip that is not in the table: that of the first and smallest one.
UNKNOWN_GPU_CORES = 8

#: GPU cores as sold, from Apple's technical specifications. There is no M4 Ultra.
GPU_CORES: Mapping[tuple[str, str], tuple[int, ...]] = MappingProxyType(
    {
        ("M1", "Base"): (8, 7),
        ("M1", "Pro"): (16, 14),
        ("M1", "Max"): (32, 24),
        ("M1", "Ultra"): (64, 48),
        ("M2", "Base"): (10, 8),
        ("M2", "Pro"): (19, 16),
        ("M2", "Max"): (38, 30),
        ("M2", "Ultra"): (76, 60),
        ("M3", "Base"): (10, 8),
        ("M3", "Pro"): (18, 14),
        ("M3", "Max"): (40, 30),
        ("M3", "Ultra"): (80, 60),
        ("M4", "Base"): (10, 8),
        ("M4", "Pro"): (20, 16),
        ("M4", "Max"): (40, 32),
        ("M5", "Base"): (10, 8),
        ("M5", "Pro"): (20, 16),
        ("M5", "Max"): (40, 32),
        ("M5", "Ultra"): (80, 64),
        ("M6", "Base"): (12,),
    }
)

# A virtual machine calls its chip "Apple M1 (Virtual)". iPhone chips ("Apple A18 Pro") have other variants: no match.
_NAME = re.compile(r"(?:apple )?(m[1-9]\d*)(?: (pro|max|ultra))?(?: \(virtual\))?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class AppleChip:
    """A chip of the M series, as in ("M2", "Pro")."""

    generation: str
    variant: str

    @property
    def name(self) -> str:
        """The name that macOS gives it."""
        return f"Apple {self.generation}" + ("" if self.variant == "Base" else f" {self.variant}")

    @property
    def fewest_gpu_cores(self) -> int | None:
        """The smallest GPU sold under this name, so that nothing is promised; ``None`` if it is not in the table."""
        sold = GPU_CORES.get((self.generation, self.variant))
        return min(sold) if sold else None


def apple_chip(name: str) -> AppleChip | None:
    """The chip of this name, with or without "Apple" before it; ``None`` if it is not one of the M series."""
    match = _NAME.fullmatch(" ".join(name.split()))
    return AppleChip(match[1].upper(), (match[2] or "Base").capitalize()) if match else None

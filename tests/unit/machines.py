"""Machines as people buy them, as far as capabilities look at them."""

from __future__ import annotations

from dataclasses import dataclass

from worker_config.units import GIB


@dataclass(frozen=True)
class FakeMachine:
    """What :class:`tasks.models.capabilities.Machine` asks for."""

    accelerator: str = "metal"
    variant: str | None = "Base"
    gpu_cores: int = 0
    memory_bytes: int = 0
    gpu_memory_bytes: int | None = None


def mac(variant: str, gpu_cores: int, memory_gb: float) -> FakeMachine:
    """An Apple machine with this chip variant, these GPU cores and this memory."""
    return FakeMachine("metal", variant, gpu_cores, int(memory_gb * GIB))


def cuda(gpu_memory_bytes: int | None, memory_gb: float = 64) -> FakeMachine:
    """A Linux machine with an NVIDIA GPU of this memory."""
    return FakeMachine("cuda", None, 80, int(memory_gb * GIB), gpu_memory_bytes)


def cpu(memory_gb: float) -> FakeMachine:
    """A Linux machine without a GPU."""
    return FakeMachine("cpu", None, 0, int(memory_gb * GIB))

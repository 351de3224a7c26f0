"""Detection: asks the machine, falls back where it does not answer, and puts the overrides above all."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from tasks.hardware.apple import ask_macos, assume_apple
from tasks.hardware.chips import apple_chip
from tasks.hardware.findings import Findings
from tasks.hardware.linux import ask_linux
from tasks.hardware.machine import this_machine
from tasks.hardware.nvidia import ask_nvidia
from worker_config.environment import SettingError
from worker_config.units import GIB

if TYPE_CHECKING:
    from tasks.hardware.machine import Machine
    from tasks.hardware.record import Hardware
    from worker_config.settings import Settings

MOST_GPU_CORES = 1_024
MOST_MEMORY_GB = 65_536


def detect(settings: Settings, machine: Machine | None = None) -> Hardware:
    """Describe this machine. Takes milliseconds, up to about 10 s on a Mac whose programs hang; asked once per process.

    An overridden ``chip`` stands for a Mac with it: its GPU cores come from the table, not from the machine underneath.
    An overridden memory is also the GPU's where the GPU has its own.

    Raises:
        SettingError: an override cannot be; the message names it, its value and what is expected.
    """
    return _detect_here(settings) if machine is None else _detect(settings, machine)


@cache
def _detect_here(settings: Settings) -> Hardware:
    return _detect(settings, this_machine())


def _detect(settings: Settings, machine: Machine) -> Hardware:
    found = _ask(settings, machine)
    if settings.chip:
        # A Mac's tiers are simulated; that its engines compute on Metal cannot be.
        bare = _ask(replace(settings, chip=""), machine)
        found.add(bare.source("accelerator") or "unknown", engine_accelerator=bare.get("accelerator") or "cpu")
    return found.hardware()


def _ask(settings: Settings, machine: Machine) -> Findings:
    found = Findings()
    _override(settings, found)
    if machine.system == "Darwin":
        ask_macos(machine, found)
    else:
        if not settings.chip:
            ask_nvidia(machine, found, settings.cuda_visible_devices)
        ask_linux(machine, found)
    if found.get("accelerator") == "metal":
        assume_apple(found)
    return found


def _override(settings: Settings, found: Findings) -> None:
    if settings.chip:
        chip = apple_chip(settings.chip)
        if chip is None:
            raise SettingError(f"CELERY_MLX_CHIP={settings.chip!r}: expected an Apple chip, such as 'Apple M2 Pro'")
        found.add("override", chip=chip.name, accelerator="metal")
    if not 0 <= settings.gpu_cores <= MOST_GPU_CORES:
        raise SettingError(f"CELERY_MLX_GPU_CORES={settings.gpu_cores}: expected 1 to {MOST_GPU_CORES}, or 0 to detect")
    if not 0 <= settings.memory_gb <= MOST_MEMORY_GB:
        raise SettingError(
            f"CELERY_MLX_MEMORY_GB={settings.memory_gb:g}: expected gigabytes, up to {MOST_MEMORY_GB}, or 0 to detect"
        )
    found.add("override", gpu_cores=settings.gpu_cores or None)
    found.add("override", memory_bytes=int(settings.memory_gb * GIB) or None)

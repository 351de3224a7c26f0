"""Reads a GPU's properties from NVIDIA's management library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.hardware.machine import ProbeFailed
from tasks.hardware.record import GpuReading

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.hardware.findings import Findings
    from tasks.hardware.machine import Machine


class NvidiaGpu:
    """The GPU that CUDA uses here: the first one that ``visible`` (``CUDA_VISIBLE_DEVICES``) leaves.

    Raises:
        ProbeFailed: the library or the driver is missing, or no GPU is visible.
    """

    def __init__(self, machine: Machine, visible: str = "") -> None:
        self._nvml = machine.nvml()
        try:
            self._nvml.nvmlInit()
            self._handle = self._find(visible.partition(",")[0].strip())
        except self._nvml.NVMLError as error:
            raise ProbeFailed(f"NVML: {error}") from None

    def _find(self, device: str) -> Any:
        if device.startswith(("GPU-", "MIG-")):
            return self._nvml.nvmlDeviceGetHandleByUUID(device)
        if device and not device.isdigit():
            raise ProbeFailed(f"CUDA_VISIBLE_DEVICES={device} hides every GPU")
        return self._nvml.nvmlDeviceGetHandleByIndex(int(device or 0))

    def name(self) -> str | None:
        """The name that NVIDIA sells it by."""
        name = self._ask(self._nvml.nvmlDeviceGetName)
        return None if name is None else str(name)

    def memory_bytes(self) -> int | None:
        """Its own memory."""
        memory = self._ask(self._nvml.nvmlDeviceGetMemoryInfo)
        return None if memory is None else int(memory.total)

    def multiprocessors(self) -> int | None:
        """Its streaming multiprocessors: NVML counts CUDA cores, 64 or 128 of which make one.

        Source: the CUDA C++ programming guide, "Compute Capabilities" (FP32 cores per multiprocessor).
        """
        cores = self._ask(self._nvml.nvmlDeviceGetNumGpuCores)
        capability = self._ask(self._nvml.nvmlDeviceGetCudaComputeCapability)
        if not cores or not capability:
            return None
        return int(cores) // (64 if tuple(capability) in {(6, 0), (7, 0), (7, 2), (7, 5), (8, 0)} else 128)

    def reading(self) -> GpuReading:
        """Read how busy it is now, and how much of its memory all processes together hold."""
        rates = self._ask(self._nvml.nvmlDeviceGetUtilizationRates)
        memory = self._ask(self._nvml.nvmlDeviceGetMemoryInfo)
        return GpuReading(
            None if rates is None else float(rates.gpu),
            None if memory is None else int(memory.used),
        )

    def _ask(self, function: Callable[[Any], Any]) -> Any:
        try:
            return function(self._handle)
        except self._nvml.NVMLError:
            # Integrated GPUs and slices of one answer only some questions.
            return None


def ask_nvidia(machine: Machine, found: Findings, visible: str) -> None:
    """Fills in the GPU, if there is one."""
    try:
        gpu = NvidiaGpu(machine, visible)
    except ProbeFailed:
        return
    if found.source("memory_bytes") == "override":
        found.add("override", gpu_memory_bytes=found.get("memory_bytes"))
    found.add(
        "nvml",
        accelerator="cuda",
        chip=gpu.name(),
        gpu_cores=gpu.multiprocessors(),
        gpu_memory_bytes=gpu.memory_bytes(),
    )

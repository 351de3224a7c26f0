"""Machines that answer from recordings instead of hardware."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tasks.hardware.machine import Machine, ProbeFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

RECORDED = Path(__file__).parent / "recorded"
GIB = 1024**3


@dataclass
class Programs:
    """Prints what was recorded, and keeps a list of what was asked. A program without a recording is not installed."""

    outputs: Mapping[str, str | Exception]
    asked: list[str] = field(default_factory=list)

    def __call__(self, argv: Sequence[str], timeout_s: float) -> str:
        assert timeout_s <= 5
        self.asked.append(argv[0])
        output = self.outputs.get(argv[0], ProbeFailed(f"{argv[0]} is not installed"))
        if isinstance(output, Exception):
            raise output
        return output


def no_nvml() -> Any:
    raise ProbeFailed("nvidia-ml-py is not installed")


def mac(programs: Programs, architecture: str = "arm64") -> Machine:
    """A Mac on which these programs answer and psutil sees 1 GiB and 1 core."""
    return Machine(
        system="Darwin",
        architecture=architecture,
        run=programs,
        read=lambda _: "",
        memory=lambda: (GIB, "psutil"),
        cpus=lambda: (1, "platform"),
        nvml=no_nvml,
    )


def recording(name: str, **instead: str | Exception) -> Programs:
    """The outputs of a recorded Mac, some of them replaced."""
    outputs: dict[str, str | Exception] = {path.stem: path.read_text() for path in (RECORDED / name).iterdir()}
    return Programs({**outputs, **instead})


def linux(
    files: Mapping[str, str] | None = None,
    *,
    memory_bytes: int = 64 * GIB,
    cpus: int = 16,
    nvml: Callable[[], Any] = no_nvml,
) -> Machine:
    """A Linux host with these files of /proc, /sys and /etc."""
    known = files or {}
    return Machine(
        system="Linux",
        architecture="x86_64",
        run=Programs({}),
        read=lambda path: known.get(path, ""),
        memory=lambda: (memory_bytes, "psutil"),
        cpus=lambda: (cpus, "affinity"),
        nvml=nvml,
    )


class FakeNvml:
    """As much of ``pynvml`` as is used. ``silent`` names the functions that this GPU does not support."""

    class NVMLError(Exception):
        """What every function raises."""

    def __init__(self, *, gpus: int = 1, driver: bool = True, silent: frozenset[str] = frozenset()) -> None:
        self.gpus = gpus
        self.driver = driver
        self.silent = silent

    def __getattr__(self, name: str) -> Callable[..., Any]:
        answers: dict[str, Any] = {
            "nvmlDeviceGetName": "NVIDIA H100 80GB HBM3",
            "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=80 * GIB, used=3 * GIB, free=77 * GIB),
            "nvmlDeviceGetNumGpuCores": 16_896,
            "nvmlDeviceGetCudaComputeCapability": (9, 0),
            "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=37, memory=12),
        }

        def function(handle: object) -> Any:
            if name in self.silent:
                raise self.NVMLError("Not Supported")
            return answers[name]

        return function

    def nvmlInit(self) -> None:  # noqa: N802 -- NVIDIA's name
        if not self.driver:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802 -- NVIDIA's name
        if index >= self.gpus:
            raise self.NVMLError("Invalid Argument")
        return f"gpu-{index}"

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802 -- NVIDIA's name
        return uuid

"""Checks this machine: its hardware, its tiers, this Python and its packages."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import TYPE_CHECKING

from tasks.cli.diagnosis.line import Line, gib
from tasks.models.capabilities import capabilities
from tasks.names import COMMAND

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.hardware import Hardware

INSTALL = "pip install 'celery-mlx[worker]'"
#: The packages that a worker needs beside MLX, and the finding where one is missing.
PACKAGES = {
    "psutil": Line("failure", "psutil", "not installed: a worker cannot tell what it uses", INSTALL),
    "rich": Line("warning", "rich", "not installed: doctor and fleet print plain lines", INSTALL),
}


def machine_lines(hardware: Hardware) -> Iterator[Line]:
    """The machine, and where each value came from."""
    sources = hardware.sources
    yield Line("ok", "chip", hardware.chip, source=sources["chip"])
    yield _gpu(hardware)
    yield Line("ok", "processor", _cores(hardware), source=sources["cpu_cores"])
    if hardware.memory_bytes:
        yield Line("ok", "memory", gib(hardware.memory_bytes), source=sources["memory_bytes"])
    else:
        yield Line("failure", "memory", "unknown", f"{INSTALL}, or set CELERY_MLX_MEMORY_GB")
    if hardware.gpu_memory_bytes:
        yield Line("ok", "GPU memory", gib(hardware.gpu_memory_bytes), source=sources["gpu_memory_bytes"])
    yield Line("ok", "system", f"{hardware.os_name} {hardware.os_version}", source=sources["os_version"])
    if hardware.overridden:
        names = ", ".join(name for name, source in sources.items() if source == "override")
        remedy = "unset CELERY_MLX_CHIP, CELERY_MLX_GPU_CORES and CELERY_MLX_MEMORY_GB to see the real machine"
        yield Line("warning", "overridden", f"not what this machine is: {names}", remedy)


def tier_lines(hardware: Hardware) -> Iterator[Line]:
    """The tiers that a worker takes here without ``-Q``, and why it takes no more."""
    offer = capabilities(hardware)
    for tier in offer.tiers:
        yield Line("ok", tier.tier.name, f"{tier.slots} requests at once, queue {tier.tier.queue}")
    if offer.why_not_next:
        yield Line("note", "beyond", offer.why_not_next)
    else:
        yield Line("ok", "beyond", "nothing: this machine serves every tier")
    yield Line("ok", "budget", f"{gib(offer.memory_budget_bytes)} for weights and KV caches of all models")


def package_lines(hardware: Hardware) -> Iterator[Line]:
    """This Python and the packages a worker needs."""
    yield _python(hardware)
    yield Line("ok", "celery-mlx", metadata.version("celery-mlx"))
    for name in ("celery", "redis"):
        yield Line("ok", name, metadata.version(name))
    for name, missing in PACKAGES.items():
        try:
            yield Line("ok", name, metadata.version(name))
        except metadata.PackageNotFoundError:
            yield missing
    yield _gateway()


def _gateway() -> Line:
    """Whether this Python can answer OpenAI's clients."""
    try:
        versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("starlette", "uvicorn"))
    except metadata.PackageNotFoundError:
        return Line("ok", "gateway", "not installed: pip install 'celery-mlx[web]' brings OpenAI's HTTP interface")
    return Line("ok", "gateway", f"{COMMAND} gateway answers OpenAI's clients ({versions})")


def _gpu(hardware: Hardware) -> Line:
    source = hardware.sources["gpu_cores"]
    if hardware.accelerator == "cpu":
        return Line("ok", "GPU", "none that MLX can use", source=hardware.sources["accelerator"])
    if hardware.accelerator == "cuda":
        return Line("ok", "GPU", f"{hardware.gpu_cores or 'unknown'} multiprocessors, CUDA", source=source)
    says = f"{hardware.gpu_cores} cores, Metal"
    if source in {"table", "unknown"}:
        why = "the smallest sold with this chip" if source == "table" else "an unknown chip"
        return Line("warning", "GPU", f"{says}: {why}", "set CELERY_MLX_GPU_CORES if it has more", source)
    return Line("ok", "GPU", says, source=source)


def _cores(hardware: Hardware) -> str:
    cores = f"{hardware.cpu_cores} cores"
    if hardware.cpu_cores_performance and hardware.cpu_cores_efficiency:
        return f"{cores}: {hardware.cpu_cores_performance} performance, {hardware.cpu_cores_efficiency} efficiency"
    return cores


def _python(hardware: Hardware) -> Line:
    says = f"{platform.python_version()}, {platform.machine()}"
    if hardware.accelerator == "cpu" and "Apple" in hardware.chip:
        remedy = "install an arm64 Python: this one runs under Rosetta, where there is no MLX"
        return Line("failure", "Python", f"{says} on {hardware.chip}", remedy)
    return Line("ok", "Python", says)

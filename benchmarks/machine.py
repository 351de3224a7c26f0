"""What was measured on: the machine, the versions, the command."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from typing import Any

import psutil

from tasks.engine.model.blas import candidates, needs_blas
from tasks.hardware import detect
from worker_config.settings import current_settings

PACKAGES = ("celery-mlx", "celery", "kombu", "redis", "mlx", "mlx-lm")


def describe_machine() -> dict[str, Any]:
    """The hardware and the system, and how busy it was at the start with other people's work."""
    hardware = detect(current_settings())
    return {
        "chip": hardware.chip,
        "cpu_cores": os.cpu_count(),
        "gpu_cores": hardware.gpu_cores,
        "memory_gb": round(psutil.virtual_memory().total / 1024**3, 1),
        "accelerator": hardware.accelerator,
        "blas": next((name for name, _ in candidates()), "reference") if needs_blas() else "the system's",
        "system": platform.platform(),
        "load_at_start": round(os.getloadavg()[0], 2),
    }


def describe_versions(client: Any) -> dict[str, str]:
    """Python, what is installed, and the Redis that was measured with."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        versions[name] = metadata.version(name)
    info = client.info("server")
    kind = info.get("server_name", "redis")
    versions[kind] = info.get(f"{kind}_version", info["redis_version"])
    return versions


def command_line() -> str:
    """How this run was started."""
    return " ".join(["python -m benchmarks", *sys.argv[1:]])

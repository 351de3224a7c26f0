"""An optimised BLAS for MLX's CPU build, which links the reference one. To be called before MLX is imported.

A library that is loaded with its symbols global wins over the one that MLX was linked with, if it comes first. Measured
with a model of 135M parameters in float32 on two cores, tokens/s at batch 1, 4 and 16: reference BLAS 9 at any batch,
OpenBLAS 17, 54 and 107, MKL 21, 49 and 96.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import logging
import platform
import sys
from importlib import metadata
from pathlib import Path

logger = logging.getLogger(__name__)

ADVICE = (
    "no optimised BLAS found, so MLX computes with the reference one. An optimised BLAS is 2 times as fast for one request "
    "and 10 times for 16 at once: apt install libopenblas0-pthread, or pip install 'celery-mlx[mkl]'"
)


def load_blas() -> str:
    """Load the best BLAS of this machine and return its name; ``""`` where MLX brings its own way of computing."""
    if not needs_blas():
        return ""
    for name, path in candidates():
        try:
            ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        except OSError as error:
            logger.warning("%s at %s cannot be loaded: %s", name, path, error)
            continue
        logger.info("BLAS: %s (%s)", name, path)
        return name
    logger.warning("BLAS: %s", ADVICE)
    return "reference"


def describe_blas(name: str) -> str:
    """Processor, library and versions: what measured times are good for."""
    words = (_processor(), name, _version(name), f"mlx {metadata.version('mlx')}")
    return ", ".join(word for word in words if word)


def blas_threads(name: str) -> int:
    """Return the number of threads that the library computes with, where its user chose it by an environment variable."""
    loaded = ctypes.CDLL(None)
    count = {"OpenBLAS": "openblas_get_num_threads", "MKL": "MKL_Get_Max_Threads"}.get(name)
    return int(getattr(loaded, count)()) if count is not None and hasattr(loaded, count) else 1


def _version(name: str) -> str:
    loaded = ctypes.CDLL(None)
    if name == "OpenBLAS" and hasattr(loaded, "openblas_get_config"):
        loaded.openblas_get_config.restype = ctypes.c_char_p
        return " ".join(str(loaded.openblas_get_config().decode()).split())
    if name == "MKL":
        return metadata.version("mkl")
    return ""


def _processor() -> str:
    """Linux's name for it: Python's own is empty there."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "CPU part")))
    return next(names, platform.machine())


def needs_blas() -> bool:
    """Whether this machine has MLX's CPU build for Linux. macOS has Accelerate and Metal, the CUDA build cuBLAS."""
    return sys.platform == "linux" and installed("mlx-cpu")


def candidates() -> list[tuple[str, str]]:
    """Name and path of each optimised BLAS in reach, the preferred one first."""
    found = []
    if openblas := ctypes.util.find_library("openblas"):
        found.append(("OpenBLAS", openblas))
    if platform.machine() in {"x86_64", "AMD64"} and (mkl := find_mkl()):
        found.append(("MKL", mkl))
    return found


def find_mkl() -> str | None:
    """The single dynamic library in the wheel ``mkl``, which puts it under ``lib`` of the environment."""
    if not installed("mkl"):
        return None
    files = [Path(str(file.locate())) for file in metadata.files("mkl") or () if file.name.startswith("libmkl_rt.so")]
    files += sorted((Path(sys.prefix) / "lib").glob("libmkl_rt.so*"))
    return next((str(path.resolve()) for path in files if path.is_file()), None)


def installed(distribution: str) -> bool:
    """Whether this environment has a distribution."""
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True

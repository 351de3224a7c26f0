"""Tries whether MLX runs here: ``python -m tasks.engine.probe``, a process of its own, prints one JSON object.

With ``--hub`` it looks after the model hub alone.

A process of its own because MLX aborts it where Metal or a driver is broken, and because nothing else may import MLX.
"""

from __future__ import annotations

import json
import sys
from importlib import metadata
from typing import Any

from tasks.engine.library import import_mlx_lm
from tasks.engine.model.blas import ADVICE, blas_threads, describe_blas, load_blas
from worker_config.cache import cache_folder

SIDE = 64
HUB_TIMEOUT_S = 3.0


def probe() -> dict[str, Any]:
    """Return MLX's description of itself and of its device, after a small product on it, and whether the model hub answers.

    ``error`` is empty if all went well; ``stage`` is what was being tried: ``import``, ``device``, ``product`` or
    ``mlx-lm``. ``recommended_bytes`` is what a Metal device recommends using (``recommendedMaxWorkingSetSize``). ``blas``
    is empty where MLX brings its own way of computing, and ``advice`` says what a better one would gain. ``layouts`` are
    the measurements of earlier engines, by which weights are laid out for it.
    """
    found: dict[str, Any] = {"mlx": _version("mlx"), "mlx_lm": _version("mlx-lm"), "stage": "import", "error": ""}
    found["layouts"] = []
    try:
        _try_mlx(found)
    except Exception as error:  # noqa: BLE001 -- whatever it is, it is the answer
        found["error"] = f"{type(error).__name__}: {error}"
    return {**found, **hub_state()}


def _try_mlx(found: dict[str, Any]) -> None:
    found["blas"] = load_blas()
    found["advice"] = ADVICE if found["blas"] == "reference" else ""
    import mlx.core as mx

    found["stage"] = "device"
    device = mx.default_device()
    about = mx.device_info(device)
    found["device"] = "gpu" if device.type == mx.gpu else "cpu"
    found["device_name"] = str(about.get("device_name", ""))
    found["recommended_bytes"] = about.get("max_recommended_working_set_size")
    found["metal"], found["cuda"] = mx.metal.is_available(), mx.cuda.is_available()
    found["stage"] = "product"
    ones = mx.ones((SIDE, SIDE))
    if (ones @ ones).sum().item() != SIDE**3:
        raise ArithmeticError("a product of two matrices of ones came out wrong")
    found["stage"] = "mlx-lm"
    import_mlx_lm()
    import mlx_lm.generate  # noqa: F401 -- that it can be imported is what is tried

    if found["blas"]:
        from tasks.engine.model.layout.record import MOST_STREAMS, Record

        threads = min(blas_threads(found["blas"]), MOST_STREAMS)
        measured = Record(cache_folder()).current(describe_blas(found["blas"]), threads)
        found["layouts"] = [entry.says for entry in measured]


def hub_state() -> dict[str, str]:
    """Return the address of the model hub (``hub``), and why it does not answer (``hub_error``, empty if it does)."""
    try:
        from huggingface_hub import constants, get_session
    except ImportError:
        return {"hub": "", "hub_error": "huggingface_hub is not installed"}
    if constants.HF_HUB_OFFLINE:
        return {"hub": constants.ENDPOINT, "hub_error": "HF_HUB_OFFLINE is set"}
    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_TIMEOUT_S)
    except Exception as error:  # noqa: BLE001 -- the client has changed its HTTP library, and with it the errors
        return {"hub": constants.ENDPOINT, "hub_error": f"{type(error).__name__}: {error}"}
    return {"hub": constants.ENDPOINT, "hub_error": ""}


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.stdout.write(json.dumps(hub_state() if "--hub" in sys.argv else probe(), allow_nan=False) + "\n")

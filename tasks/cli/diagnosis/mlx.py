"""Whether MLX runs, and on which device."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from tasks.cli.diagnosis.line import Line, gib
from tasks.cli.diagnosis.machine import INSTALL
from tasks.names import PACKAGE
from worker_config.settings import child_environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tasks.hardware import Hardware

PROBE = (sys.executable, "-m", f"{PACKAGE}.engine.probe")
#: The first import after an installation compiles; a GPU's driver may take seconds to wake up.
TIMEOUT_S = 90.0


def ask_probe(command: Sequence[str] = PROBE, timeout_s: float = TIMEOUT_S) -> dict[str, Any] | Line:
    """The answer of :mod:`tasks.engine.probe`, or the line that says why there is none.

    It runs in a process of its own, because MLX may abort that process.
    """
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            env=child_environment(),
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Line("failure", "MLX", f"did not answer within {timeout_s:g} s", "is the GPU hung? Restart the machine")
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
        return dict(answer)
    except (ValueError, IndexError, TypeError):
        words = done.stderr.strip().splitlines() or ["it said nothing"]
        return Line("failure", "MLX", f"{_ending(done.returncode)}: {words[-1]}", f"reinstall it: {INSTALL}")


def mlx_lines(answer: dict[str, Any] | Line, hardware: Hardware) -> Iterator[Line]:
    """Yield the probe's findings about MLX."""
    if isinstance(answer, Line):
        yield answer
        return
    if not answer["mlx"] or not answer["mlx_lm"]:
        missing = "mlx" if not answer["mlx"] else "mlx-lm"
        yield Line(
            "failure", "MLX", f"{missing} is not installed: this machine can send requests, not serve them", INSTALL
        )
        return
    versions = f"mlx {answer['mlx']}, mlx-lm {answer['mlx_lm']}"
    if answer["error"]:
        yield Line("failure", "MLX", f"{versions}: {answer['error']} ({answer['stage']})", f"reinstall it: {INSTALL}")
        return
    yield Line("ok", "MLX", f"{versions} computes on the {answer['device'].upper()}, {answer['device_name']}")
    yield from _mismatch(answer, hardware)
    if answer["recommended_bytes"]:
        yield Line("ok", "GPU memory", f"the device recommends using {gib(answer['recommended_bytes'])} at most")
    if answer["advice"]:
        yield Line("warning", "BLAS", answer["advice"], "apt install libopenblas0-pthread")
    elif answer["blas"]:
        yield Line("ok", "BLAS", answer["blas"])
    for says in answer["layouts"]:
        yield Line("ok", "weights", says)


def hub_lines(answer: dict[str, Any] | Line) -> Iterator[Line]:
    """Whether models that are not on this disk can be fetched."""
    if isinstance(answer, Line) or not answer["hub"]:
        return
    if answer["hub_error"]:
        says = f"{answer['hub']} does not answer ({answer['hub_error']}): only models on this disk can be served"
        yield Line("warning", "hub", says, "fetch models in advance, or set HF_ENDPOINT to a mirror")
    else:
        yield Line("ok", "hub", f"{answer['hub']} answers")


def _mismatch(answer: dict[str, Any], hardware: Hardware) -> Iterator[Line]:
    """A GPU that only one of the two knows: tiers and slots would be those of another machine."""
    if hardware.sources["accelerator"] == "override":
        return
    if answer["device"] == "gpu" and hardware.accelerator == "cpu":
        remedy = "pip install nvidia-ml-py: without it this machine serves the smallest tier"
        yield Line("warning", "GPU", "MLX uses one whose memory cannot be asked for", remedy)
    elif answer["device"] == "cpu" and hardware.accelerator == "cuda":
        says = "lies idle: this is MLX's build for processors, and the tiers count on the GPU"
        remedy = "in a new environment: pip install 'celery-mlx[worker-cuda13]' (or worker-cuda12)"
        yield Line("failure", "GPU", says, remedy)
    elif answer["device"] == "cpu" and hardware.accelerator == "metal":
        yield Line("failure", "GPU", "MLX does not reach Metal", "a virtual machine may have none; else update macOS")


def _ending(code: int) -> str:
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with status {code}"

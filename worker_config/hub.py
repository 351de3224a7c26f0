"""The folders of the model hub's client, found without that client, which a producer does not have."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: The bytes that a download leaves free on the disk. The bundled model takes as much while it is converted.
LEAST_FREE_BYTES = 512 << 20


def hub_cache(environ: Mapping[str, str] | None = None) -> Path:
    """The hub client's folder: ``HF_HUB_CACHE``, or its older name, else ``hub`` in ``HF_HOME``, else in the user's folder
    for caches.
    """
    values = os.environ if environ is None else environ
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if values.get(name):
            return _expanded(values[name])
    if values.get("HF_HOME"):
        return _expanded(values["HF_HOME"]) / "hub"
    return _expanded(values.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface" / "hub"


def _expanded(folder: str) -> Path:
    """As the hub's client reads it."""
    return Path(os.path.expandvars(folder)).expanduser()


def repository_folder(hub_id: str, environ: Mapping[str, str] | None = None) -> Path:
    """Return the folder in which the hub's client keeps all that it has of one model."""
    return hub_cache(environ) / f"models--{hub_id.replace('/', '--')}"


def hub_is_offline(environ: Mapping[str, str] | None = None) -> bool:
    """Whether the hub's client may not ask the hub: ``HF_HUB_OFFLINE``, as that client reads it."""
    values = os.environ if environ is None else environ
    value = values.get("HF_HUB_OFFLINE") or values.get("TRANSFORMERS_OFFLINE") or ""
    return value.upper() in {"1", "ON", "YES", "TRUE"}


def hub_snapshot(hub_id: str, revision: str | None = None, environ: Mapping[str, str] | None = None) -> Path | None:
    """The local folder of a model at this revision (``None`` is the newest that was fetched); ``None`` if not local."""
    folder = repository_folder(hub_id, environ)
    wanted = revision or "main"
    try:
        commit = (folder / "refs" / wanted).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        commit = wanted
    snapshot = folder / "snapshots" / commit
    return snapshot if snapshot.is_dir() else None


def fetched_snapshot(hub_id: str, revision: str | None = None) -> Path | None:
    """The local folder of a model if all of it was fetched; ``None`` if it was not, or if nobody here knows."""
    snapshot = hub_snapshot(hub_id, revision)
    return snapshot if snapshot is not None and complete_mark(snapshot).is_file() else None


def complete_mark(snapshot: Path) -> Path:
    """The file whose presence says that a snapshot is whole. It is beside the folders that the hub's client looks into."""
    return snapshot.parent.parent / f".celery-mlx-{snapshot.name}"

"""The folder of large files that can be fetched again: the platform's for caches, outside the repository."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from worker_config.settings import current_settings

#: Part of each model's path; raised when the conversion changes, so that what an older version wrote is not used.
LAYOUT = 1


def cache_folder() -> Path:
    """The project's folder for caches, which may not exist yet.

    ``CELERY_MLX_CACHE`` if set; else ``celery-mlx`` in ``~/Library/Caches`` on macOS, and elsewhere in
    ``XDG_CACHE_HOME`` or ``~/.cache`` (XDG Base Directory Specification: a relative path there counts as unset).
    """
    if current_settings().cache:
        return Path(current_settings().cache).expanduser().absolute()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "celery-mlx"
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (given if given.is_absolute() else Path.home() / ".cache") / "celery-mlx"


def bundled_folder(name: str) -> Path:
    """The folder of a bundled model, such as ``smollm2-135m``, in mlx-lm's format.

    ``python -m tasks.demo.bundled`` makes it. It appears under this name only when it is complete, so its existence is
    all there is to check.
    """
    return cache_folder() / f"models-{LAYOUT}" / name

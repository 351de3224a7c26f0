"""The folder of what ``celery -A tasks up`` must not lose on a development machine: Redis' data and the parts' logs."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def data_folder() -> Path:
    """The project's folder for data, which may not exist yet.

    ``celery-mlx`` in ``~/Library/Application Support`` on macOS, and elsewhere in ``XDG_DATA_HOME`` or ``~/.local/share`` (XDG
    Base Directory Specification: a relative path there counts as unset).
    """
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "celery-mlx"
    given = Path(os.environ.get("XDG_DATA_HOME", ""))
    return (given if given.is_absolute() else Path.home() / ".local" / "share") / "celery-mlx"

"""Imports mlx-lm without its side effects on the process."""

from __future__ import annotations

import resource

from worker_config.open_files import allow_open_files

#: Open files that a model in many parts may take.
OPEN_FILES = 2048


def import_mlx_lm() -> None:
    """Import mlx-lm, and leave this process at least the open files that it may have now.

    ``mlx_lm/utils.py`` (0.32.2) sets the limit to 2,048 and the highest that may be set to 4,096. That fails where the
    system allows less, as in a container, and takes files from a process that may have more.
    """
    set_limit = resource.setrlimit
    resource.setrlimit = lambda _resource, _limits, /: None
    try:
        import mlx_lm.utils  # noqa: F401
    finally:
        resource.setrlimit = set_limit
    allow_open_files(OPEN_FILES)

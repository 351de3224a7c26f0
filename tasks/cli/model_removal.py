"""``celery -A tasks models remove``: a model's files, taken off this machine's disk."""

from __future__ import annotations

import shutil
import socket
from typing import TYPE_CHECKING

from tasks.cli.overview.words import size
from worker_config.cache import bundled_folder
from worker_config.hub import repository_folder

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from worker_config.catalogue import ModelEntry


class NotRemovable(Exception):
    """The files are not this project's to remove, or are not here, or are in use; the message says what to do."""


def removable_folder(entry: ModelEntry, nodes: Iterable[str]) -> Path:
    """The folder of a model's files.

    Args:
        entry: the model.
        nodes: the workers that have it loaded.

    Raises:
        NotRemovable: it is not to be removed.
    """
    if entry.kind == "path":
        raise NotRemovable(f"{entry.name} is in a folder of yours: remove {entry.source} yourself")
    if entry.kind == "fake":
        raise NotRemovable(f"{entry.name} has no files")
    folder = bundled_folder(entry.source) if entry.kind == "bundled" else repository_folder(entry.source)
    if not folder.is_dir():
        raise NotRemovable(f"{entry.name} is not on this machine: {folder} does not exist")
    here = [node for node in nodes if node.partition("@")[2] == socket.gethostname()]
    if here:
        raise NotRemovable(f"{entry.name} is loaded on {', '.join(here)}: run `models unload` there first")
    return folder


def size_of_folder(folder: Path) -> str:
    """Return the size of a folder's files on the disk; links lead to files that are counted where they are."""
    return size(sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()))


def remove_folder(folder: Path) -> None:
    """Remove it. Renamed first: another process finds all of the model, or none of it.

    Raises:
        NotRemovable: the system refuses.
    """
    doomed = folder.with_name(f".removed-{folder.name}")
    try:
        folder.rename(doomed)
        shutil.rmtree(doomed)
    except OSError as error:
        raise NotRemovable(f"{error.filename or folder} cannot be removed ({error.strerror})") from None

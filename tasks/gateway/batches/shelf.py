"""Records on disk, one JSON file each. If a process is killed, a record is there as a whole or as it was before."""

from __future__ import annotations

import json
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from tasks.messages.encoding import to_compact_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_SUFFIX = ".json"
#: The age at which files that a killed process was writing are removed.
_TORN_S = 3_600


class Shelf:
    """The records in one folder.

    Args:
        folder: is made by the first write, for this user alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def part(self, name: str) -> Path:
        """Return the path at which this thread writes something before it takes its place, and make the folder for it.

        Raises:
            OSError: the folder cannot be made.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self.folder / f".{name}.{os.getpid()}-{threading.get_ident()}"

    def write(self, name: str, values: Mapping[str, Any]) -> None:
        """Write a record in the place of an older one.

        Raises:
            OSError: it cannot be written.
        """
        part = self.part(name)
        part.write_text(to_compact_json(values), encoding="utf-8")
        place(part, self.folder / f"{name}{_SUFFIX}")

    def read(self, name: str) -> dict[str, Any] | None:
        """A record; ``None`` if there is none, or none that can be read.

        Raises:
            OSError: the folder cannot be read.
        """
        try:
            values = json.loads((self.folder / f"{name}{_SUFFIX}").read_bytes())
        except (FileNotFoundError, ValueError):
            return None
        return values if isinstance(values, dict) else None

    def names(self) -> list[str]:
        """Those of all records.

        Raises:
            OSError: the folder cannot be read.
        """
        try:
            found = [path.name for path in self.folder.iterdir()]
        except FileNotFoundError:
            return []
        return [name.removesuffix(_SUFFIX) for name in found if name.endswith(_SUFFIX) and not name.startswith(".")]

    def remove(self, name: str) -> None:
        """Delete a record, if there is one.

        Raises:
            OSError: it cannot be deleted.
        """
        (self.folder / f"{name}{_SUFFIX}").unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete the files that killed processes have left.

        Raises:
            OSError: the folder cannot be read.
        """
        for part in self.folder.glob(".*"):
            if time.time() - part.stat().st_mtime > _TORN_S:
                part.unlink(missing_ok=True)


def place(part: Path, target: Path) -> None:
    """Have a file take its place, once it is on the disk.

    Raises:
        OSError: it cannot.
    """
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(target)

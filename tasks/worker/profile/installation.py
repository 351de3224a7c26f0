"""Whether the code that engines are started from is whole, and still the code that this worker was started from.

An engine and a download are new processes: they import what is on the disk now. pip and uv remove a package file by file before
they write the new one, so a process that starts meanwhile fails for lack of a module, and mlx-lm says of such a model that it
does not know its type. That is not the model's fault.
"""

from __future__ import annotations

import os
import re
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from tasks import names
from worker_config import tiers

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What engines import; a distribution that is not installed is not missed.
DISTRIBUTIONS = (
    *("celery-mlx", "mlx", "mlx-lm", "transformers", "tokenizers", "huggingface-hub"),
    *("safetensors", "numpy", "llguidance", "jinja2", "regex", "jsonschema"),
)
#: Files without which they do not run. People remove the tests of packages to save room.
NEEDED = {".py", ".so", ".dylib", ".metallib"}
SPARED = {"test", "tests"}
#: Where packages are installed.
PLACES = {"site-packages", "dist-packages"}

_CANNOT_IMPORT = re.compile(r"^(ModuleNotFoundError|ImportError)\b|: No module named ")
_NOT_THERE = re.compile(r"^FileNotFoundError\b")


class Installation:
    """The installed code as it is now, to be compared with later.

    Args:
        own: the folders of this project's packages.
        places: the folders that packages are installed into.
    """

    def __init__(self, own: tuple[Path, ...] = (), places: tuple[Path, ...] = ()) -> None:
        self._own = own or tuple(Path(str(module.__file__)).parent for module in (names, tiers))
        self._places = places or tuple(_places())
        self._before = self._stamps()

    def fault(self) -> str:
        """What has become of it; empty if it is whole and unchanged. Reads the disk for up to a second."""
        now = self._stamps()
        changed = [path for path in self._before | now if self._before.get(path) != now.get(path)]
        if changed:
            return f"{min(changed)} was changed after its start"
        lacking = ((name, file) for name in DISTRIBUTIONS if (file := _lacking(name)))
        return next((f"{name} lacks {file}, and has to be installed again" for name, file in lacking), "")

    def fault_of(self, last_words: str) -> str:
        """Why a process with these last words could not start; empty if nothing is known against the installation."""
        if fault := self.fault():
            return fault
        found = [line for line in last_words.splitlines() if self._is_of_code(line)]
        return f"the code of its engines is not whole ({found[-1]}), and has to be installed again" if found else ""

    def _is_of_code(self, line: str) -> bool:
        """Whether an error is about a module, or a file of one, and not about a model's."""
        of_code = (sys.executable, *map(str, (*self._own, *self._places)))
        return bool(_CANNOT_IMPORT.search(line) or (_NOT_THERE.search(line) and any(path in line for path in of_code)))

    def _stamps(self) -> dict[Path, int]:
        """When the files of our own, and the lists of what is installed, were written, in nanoseconds."""
        folders = (
            folder for own in self._own for folder in os.walk(own)
        )  # which passes over what is removed meanwhile
        files = (Path(folder, file) for folder, _, all_ in folders for file in all_ if file.endswith(".py"))
        found: dict[Path, int] = {}
        for path in (*files, *self._places):
            try:
                found[path] = path.stat().st_mtime_ns
            except OSError:  # it is removed just now
                continue
        return found


def installed_s() -> float:
    """How many seconds ago a package was installed or removed here."""
    return time.time() - max((path.stat().st_mtime for path in _places()), default=0.0)


def _places() -> Iterator[Path]:
    """The folders that packages are installed into."""
    return (path for path in map(Path, sys.path) if path.name in PLACES and path.is_dir())


def _lacking(distribution: str) -> str:
    """A file of an installed distribution that is not there; empty if there is none."""
    try:
        found = metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return ""
    # The list of a checkout (egg-info) has files that are there no more.
    files = (found.files if found.read_text("RECORD") is not None else None) or []
    needed = (file for file in files if file.suffix in NEEDED and SPARED.isdisjoint(file.parts))
    return next((str(file) for file in needed if not Path(str(file.locate())).exists()), "")

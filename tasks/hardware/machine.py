"""The narrow gate between this package and the machine: programs, files, and the two libraries that know more.

Detection and usage ask nothing outside a :class:`Machine`, so recorded answers can stand in for real hardware.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Runner: TypeAlias = Callable[[Sequence[str], float], str]

#: Where macOS and Linux keep the programs asked here; cron and some launchers leave the sbin folders out of PATH.
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class ProbeFailed(Exception):
    """A source of information gave no answer: the program is missing, hung or cannot be started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """The questions that can be asked of a machine.

    Args:
        system: the kernel's name, as in ``platform.system()``.
        architecture: as in ``platform.machine()``.
        run: starts a program and returns its output; raises :class:`ProbeFailed`.
        read: the text of a file, empty if there is none.
        memory: the host's memory in bytes and where the figure comes from.
        cpus: the logical cores that this process may run on and where the figure comes from.
        nvml: NVIDIA's management library as a module; raises :class:`ProbeFailed` where it is not installed.
    """

    system: str
    architecture: str
    run: Runner
    read: Callable[[str], str]
    memory: Callable[[], tuple[int, str]]
    cpus: Callable[[], tuple[int, str]]
    nvml: Callable[[], Any]

    @property
    def is_apple_silicon(self) -> bool:
        """Whether this is a Mac with Apple's own chip, seen by a Python that was built for it."""
        return self.system == "Darwin" and self.architecture == "arm64"


@cache
def this_machine() -> Machine:
    """The machine that runs this process."""
    return Machine(
        system=platform.system(),
        architecture=platform.machine(),
        run=run_program,
        read=read_file,
        memory=host_memory,
        cpus=usable_cpus,
        nvml=load_nvml,
    )


def run_program(argv: Sequence[str], timeout_s: float) -> str:
    """Return the output of a program, whatever its exit status: ``sysctl`` answers the names it knows and then fails.

    Raises:
        ProbeFailed: it is not installed, cannot be started, or was still running after ``timeout_s`` and was killed.
    """
    program = shutil.which(argv[0]) or shutil.which(argv[0], path=SYSTEM_PATH)
    if program is None:
        raise ProbeFailed(f"{argv[0]} is not installed")
    try:
        finished = subprocess.run(
            [program, *argv[1:]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ProbeFailed(f"{argv[0]} did not end within {timeout_s:g} s") from None
    except OSError as error:
        raise ProbeFailed(f"{argv[0]} cannot be started ({error.strerror})") from None
    return finished.stdout


def read_file(path: str) -> str:
    """The text of a small file, empty if it is missing or unreadable, as most files of /proc and /sys are somewhere."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def host_memory() -> tuple[int, str]:
    """The host's memory in bytes, from psutil or, without it, from the C library."""
    try:
        import psutil
    except ImportError:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), "sysconf"
    return psutil.virtual_memory().total, "psutil"


def usable_cpus() -> tuple[int, str]:
    """The logical cores that this process may run on, from its affinity or, where there is none, from the host."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0)), "affinity"
    return os.cpu_count() or 1, "platform"


def load_nvml() -> Any:
    """The module ``pynvml`` of the distribution ``nvidia-ml-py``.

    Raises:
        ProbeFailed: it is not installed.
    """
    try:
        import pynvml
    except ImportError:
        raise ProbeFailed("nvidia-ml-py is not installed") from None
    return pynvml

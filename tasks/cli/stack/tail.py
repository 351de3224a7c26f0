"""Follows the logs of the parts, and prints their lines with the part's name in front."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import IO

EVERY_S = 0.1


class Tail(threading.Thread):
    """Follows files that grow, from their present ends.

    Args:
        emit: takes the name of a part and one line of it, on this thread.
    """

    def __init__(self, emit: Callable[[str, str], None]) -> None:
        super().__init__(name="tail", daemon=True)
        self._emit = emit
        self._files: dict[str, IO[bytes]] = {}
        self._begun: dict[str, bytes] = {}
        self._stopping = threading.Event()

    def follow(self, name: str, log: Path) -> None:
        """Follow one more file; it is made if it is not there. Call it before :meth:`start`."""
        log.touch()
        file = self._files[name] = log.open("rb")
        file.seek(0, 2)
        self._begun[name] = b""

    def run(self) -> None:
        """Follow, until :meth:`stop`."""
        while not self._stopping.wait(EVERY_S):
            self._read()
        self._read()
        for file in self._files.values():
            file.close()

    def stop(self) -> None:
        """Show the remaining lines, and end."""
        self._stopping.set()
        self.join()

    def _read(self) -> None:
        for name, file in self._files.items():
            *lines, self._begun[name] = (self._begun[name] + file.read()).split(b"\n")
            for line in lines:
                self._emit(name, line.decode(errors="replace"))

"""A server that keeps its data on disk, and can be put back to what it knew a while ago, as by a power loss."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from tasks.demo.embedded import EmbeddedServer

if TYPE_CHECKING:
    from pathlib import Path


class DurableServer(EmbeddedServer):
    """Use it as a context manager.

    Args:
        folder: where the data are.
        password: the server's password.
        port: its port.
    """

    def __init__(self, folder: Path, password: str, port: int) -> None:
        self._data = folder / "data"
        self._saved = folder / "saved"
        self._data.mkdir()
        super().__init__(appendonly=self._data, password=password, port=port, config=["appendfsync always"])

    def save(self) -> None:
        """Remember what the server knows now."""
        shutil.rmtree(self._saved, ignore_errors=True)
        shutil.copytree(self._data, self._saved)

    def roll_back(self) -> None:
        """``kill -9``, and a start with what was saved: all that was written since is lost."""
        self.kill()
        shutil.rmtree(self._data)
        shutil.copytree(self._saved, self._data)
        self.start()

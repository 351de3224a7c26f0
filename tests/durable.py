"""Servers that keep their data on disk: one that can be put back, as by a power loss, and one whose disk can be full."""

from __future__ import annotations

import resource
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from tasks.demo.embedded import EmbeddedServer, find_server
from tests.support import forget_connections
from worker_config.settings import current_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


Server = TypeVar("Server", bound=EmbeddedServer)


@contextmanager
def in_place_of(usual: EmbeddedServer, server: Server) -> Iterator[Server]:
    """Run this server where the tests' usual one was."""
    usual.stop()
    with server:
        forget_connections()
        yield server
    forget_connections()


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


class FillableServer(EmbeddedServer):
    """A server that keeps its data on disk, and has no room for more when a test says so. Linux only. A context manager.

    A limit on the size of its files stands for the full disk: Valkey reports both as the same error.

    Args:
        folder: where the data are.
        password: the server's password.
        port: its port.
    """

    def __init__(self, folder: Path, password: str, port: int) -> None:
        self._data = folder / "data"
        self._data.mkdir()
        program = folder / "server.sh"
        # Without this the first write beyond the limit would end the server.
        program.write_text(
            f'#!/bin/sh\ntrap "" XFSZ\nexec "{find_server(current_settings().redis_server)}" "$@"\n', encoding="utf-8"
        )
        program.chmod(0o755)
        super().__init__(appendonly=self._data, password=password, port=port, program=program)

    def fill(self) -> None:
        """Have no room left from now on."""
        self._limit(max(path.stat().st_size for path in self._data.rglob("*.aof")))

    def make_room(self) -> None:
        """Have room again."""
        self._limit(resource.RLIM_INFINITY)

    def _limit(self, size: int) -> None:
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

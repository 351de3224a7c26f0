"""Programs that a test starts beside workers, each in a session of its own; nothing of them stays behind."""

from __future__ import annotations

import os
import subprocess
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.support import MARK, ROOT, assert_gone

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


class Program:
    """A running program and what it has said."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self._log = log

    def log(self) -> str:
        """Standard output and error so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def alive(self) -> bool:
        """True; an assertion with the log fails if it has ended."""
        assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.log()}"
        return True

    def end(self, timeout_s: float = 60.0) -> int:
        """SIGTERM, and the exit status."""
        self.process.terminate()
        return self.process.wait(timeout_s)


@contextmanager
def running(
    command: Sequence[str], log: Path, env: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> Iterator[Program]:
    """The program, while it runs; ended in order if it can be, and for certain."""
    mark = uuid.uuid4().hex
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(command),
            cwd=cwd,
            env={**os.environ, **(env or {}), MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    program = Program(process, log)
    try:
        yield program
    finally:
        try:
            if process.poll() is None:
                program.end()
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        finally:
            print(f"--- {' '.join(command)[:200]}\n{program.log()}")
            assert_gone(mark)

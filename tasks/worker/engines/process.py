"""An engine process as its worker sees it: started, spoken to over one private pipe, and ended."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import subprocess
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING, Self

from tasks.messages.engine import EngineConfig, Shutdown
from tasks.messages.pipe import Pipe
from tasks.messages.protocol import protocol
from tasks.names import PACKAGE
from tasks.worker.cores import spread
from worker_config.settings import child_environment

if TYPE_CHECKING:
    from types import TracebackType
    from typing import IO

    from tasks.messages.engine import FromEngine, ToEngine

logger = logging.getLogger(__name__)

LAST_LINES = 20
_LEVELS = logging.getLevelNamesMapping()


def engine_environment(threads: int) -> dict[str, str]:
    """Return an engine's environment, without variables that somebody has set. 0 threads leave their number to the BLAS."""
    return {**(blas_threads(threads) if threads else {}), "TOKENIZERS_PARALLELISM": "false"}


def blas_threads(count: int) -> dict[str, str]:
    """The environment that gives a process so many threads of whichever BLAS it loads."""
    return {"OPENBLAS_NUM_THREADS": str(count), "MKL_NUM_THREADS": str(count)}


class EngineGone(Exception):
    """The engine's process has ended, or its pipe is closed; the message says how, with its last words."""

    def __init__(self, message: str, exitcode: int | None = None) -> None:
        super().__init__(message)
        self.exitcode = exitcode

    @property
    def is_accident(self) -> bool:
        """Whether its end says nothing of its model: a signal ended it, or it lost its pipe, which ends it with 0."""
        return self.exitcode is not None and self.exitcode <= 0


class EngineProcess:
    """One engine process. ``receive`` belongs to one thread; everything else may be called from any.

    The process ends with its parent: it sees the pipe close. Its stderr goes to this module's log, line by line. An engine
    that does not read (stopped, swapped out) holds up nobody who sends, some of whom hold locks.
    """

    def __init__(
        self, config: EngineConfig, process: subprocess.Popen[bytes], link: socket.socket, exit_wait_s: float
    ) -> None:
        self.config = config
        self._exit_wait_s = exit_wait_s
        self._process = process
        self._pipe = Pipe(link, f"engine-writer-{process.pid}")
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES)
        assert process.stderr is not None
        self._pump = threading.Thread(
            target=self._forward, args=(process.stderr,), name=f"engine-log-{process.pid}", daemon=True
        )

    @classmethod
    def start(cls, config: EngineConfig, exit_wait_s: float = 5.0) -> Self:
        """Start a process for this model and return at once; its first messages say how the loading goes.

        Args:
            config: the model that it serves, and how.
            exit_wait_s: how long a process that has closed its pipe may take to end.

        Raises:
            OSError: the machine is out of processes, memory or file descriptors.
        """
        ours, theirs = socket.socketpair()
        try:
            with spread(config.cores):
                process = subprocess.Popen(
                    [sys.executable, "-m", f"{PACKAGE}.engine", "--fd", str(theirs.fileno()), "--protocol", protocol()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    pass_fds=[theirs.fileno()],
                    env=child_environment(engine_environment(config.threads)),
                )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        engine = cls(config, process, ours, exit_wait_s)
        engine._pump.start()
        engine._pipe.start()
        with contextlib.suppress(EngineGone):  # receive() says why
            engine.send(config)
        return engine

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def exitcode(self) -> int | None:
        """``None`` while it runs; negative where a signal ended it."""
        return self._process.poll()

    def send(self, message: ToEngine) -> None:
        """Have a message written; never waits for the engine. :meth:`receive` tells of an end before it was read.

        Raises:
            EngineGone: the process has ended.
            Exception: whatever pickling raises for a message that cannot be sent.
        """
        exitcode = self.exitcode
        if exitcode is not None:
            raise EngineGone(f"engine {self.pid} for {self.config.model!r} {ending(exitcode)}", exitcode)
        self._pipe.send(message)

    def receive(self) -> FromEngine:
        """Wait for the engine's next message.

        Raises:
            EngineGone: the process has ended, or :meth:`close` was called.
        """
        try:
            message: FromEngine = self._pipe.receive()
        except (OSError, EOFError):
            raise self._gone() from None
        return message

    @property
    def has_more(self) -> bool:
        """Whether :meth:`receive` returns at once, as more messages have come with the last one."""
        return self._pipe.has_more

    def kill(self) -> None:
        """End the process at once; :meth:`receive` then raises."""
        self._process.kill()

    def close(self, timeout_s: float = 5.0) -> None:
        """Ask the process to end, kill it if it does not within ``timeout_s``, and wait for its end. May be repeated."""
        killer = threading.Timer(timeout_s, self._process.kill)
        killer.start()
        with contextlib.suppress(EngineGone):
            self.send(Shutdown())
        self._process.wait()
        killer.cancel()
        self._pipe.end()
        self._pump.join(self._exit_wait_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _gone(self) -> EngineGone:
        """Say how the process ended. It closes its pipe a moment before it is gone; without a pipe it is of no use."""
        try:
            exitcode = self._process.wait(self._exit_wait_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            exitcode = self._process.wait()
        self._pipe.end()
        self._pump.join(self._exit_wait_s)
        last_words = "; its last words:\n" + "\n".join(self._last_lines) if self._last_lines else ""
        return EngineGone(f"engine {self.pid} for {self.config.model!r} {ending(exitcode)}{last_words}", exitcode)

    def _forward(self, stderr: IO[bytes]) -> None:
        with stderr:
            for raw in stderr:
                line = raw.decode(errors="replace").rstrip()
                if not line:
                    continue
                self._last_lines.append(line)
                level, _, text = line.partition(" ")
                # What is not the engine's own log is a library's last words before an abort.
                known = _LEVELS.get(level)
                logger.log(known or logging.WARNING, "engine %s: %s", self.pid, text if known else line)


def ending(exitcode: int) -> str:
    """Describe the end of a process with this exit code (negative: the signal)."""
    if exitcode >= 0:
        return f"exited with code {exitcode}"
    try:
        return f"was ended by {signal.Signals(-exitcode).name}"
    except ValueError:
        return f"was ended by signal {-exitcode}"

"""The parts as running processes: started one after the other, watched, and ended together, Redis last."""

from __future__ import annotations

import fcntl
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, Self

from tasks.cli.stack.tail import Tail
from tasks.demo.embedded import EmbeddedServer
from tasks.demo.errors import SetupError
from tasks.demo.process import GuardedProcess
from tasks.messages.registry import WorkerRecord
from tasks.registry import Registry
from tasks.server.connection import connect
from worker_config.settings import current_settings, environment_with, redis_was_given

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from tasks.cli.stack.part import Part

#: The time that a worker may take to end: it lets requests run for that long, and then hands them back.
DRAIN_S = 5
GRACE_S = DRAIN_S + 15.0
#: A part that asks for a new start has it at once, and not more often than this.
AGAIN_S = 5.0


@contextmanager
def redis_for(folder: Path, port: int) -> Iterator[tuple[str, str]]:
    """The URL of the Redis to use, and what is said of it: the one that ``REDIS_URL`` names, one that is there, or one of ours.

    Args:
        folder: where ours keeps its data.
        port: where ours listens, and where another one is looked for.

    Raises:
        SetupError: it does not answer, or cannot be started.
    """
    url = current_settings().redis_url if redis_was_given() else f"redis://localhost:{port}/0"
    trouble = _trouble(url)
    if trouble is None:
        yield url, "the one that is there"
    elif redis_was_given():
        raise SetupError(f"the Redis that REDIS_URL names does not answer ({trouble}): start it, or unset REDIS_URL")
    else:
        data = folder / "redis"
        data.mkdir(parents=True, exist_ok=True)
        # Without a password, as every other program on this machine finds it by the default REDIS_URL.
        with EmbeddedServer(appendonly=data, password="", port=port):
            yield url, f"its data is kept in {data}"


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Hold the folder for this process, which the system gives up for one that dies.

    Raises:
        SetupError: another one has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SetupError(f"another one runs on {folder}: end it, or name another folder with --data") from None
        yield


class Stack:
    """The running parts; a context manager that ends them.

    Args:
        parts: the parts to start.
        url: the Redis that they use.
        logs: the folder of their logs.
        emit: takes the name of a part and a line of its log.
    """

    def __init__(self, parts: Sequence[Part], url: str, logs: Path, emit: Callable[[str, str], None]) -> None:
        self.parts = list(parts)
        self._url = url
        self._logs = logs
        self._tail = Tail(emit)
        self._processes: dict[str, GuardedProcess] = {}
        self._started_at: dict[str, float] = {}
        self._ended: set[str] = set()
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        self._logs.mkdir(parents=True, exist_ok=True)
        for part in self.parts:
            self._tail.follow(part.name, self._log(part))
        with ExitStack() as undo:
            undo.callback(self._tail.stop)
            self._tail.start()
            undo.callback(self._stop)
            for part in self.parts:
                self._begin(part)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._undo.close()

    @property
    def pids(self) -> dict[str, int]:
        """The process of each part."""
        return {name: process.pid for name, process in self._processes.items()}

    def check(self) -> list[tuple[str, str]]:
        """The names of those that have ended since the last look, and what comes of it. Who ends with 75 is started again.

        Raises:
            SetupError: one that the others need has ended; the message has its last words.
        """
        ended = [part for part in self.parts if part.name not in self._ended and not self._processes[part.name].running]
        return [(part.name, about) for part in ended if (about := self._after_the_end(part))]

    def _after_the_end(self, part: Part) -> str:
        """What comes of a part's end, in words; empty where it is started again a little later."""
        if self._processes[part.name].status == os.EX_TEMPFAIL:
            if time.monotonic() < self._started_at[part.name] + AGAIN_S:
                return ""
            self._begin(part)
            return f"has ended with status {os.EX_TEMPFAIL}, and is started again"
        if part.vital:
            last = self._processes[part.name].log_tail(1) or "it said nothing"
            raise SetupError(f"{part.name} has ended: {last}")
        self._ended.add(part.name)
        return "has ended; the others continue"

    def _begin(self, part: Part) -> None:
        environment = environment_with(
            REDIS_URL=self._url, CELERY_MLX_DRAIN_TIMEOUT_S=str(DRAIN_S), PYTHONUNBUFFERED="1"
        )
        if part.name in self._processes:
            self._processes[part.name].stop()  # closes what is left of its guard
        self._started_at[part.name] = time.monotonic()
        self._processes[part.name] = GuardedProcess(part.command, log=self._log(part), grace_s=GRACE_S, env=environment)

    def worker_is_ready(self) -> bool:
        """Whether the worker, if there is one, is registered."""
        if "worker" not in self._processes:
            return True
        pid = self._processes["worker"].pid
        with closing(connect(self._url)) as client:
            return any(isinstance(record, WorkerRecord) and record.pid == pid for record in Registry(client).records())

    def _log(self, part: Part) -> Path:
        return self._logs / f"{part.name}.log"

    def _stop(self) -> None:
        """End all of them at once, and wait until they are gone."""
        processes = list(self._processes.values())
        try:
            with ThreadPoolExecutor(max(len(processes), 1)) as threads:
                list(threads.map(GuardedProcess.stop, processes))
        except KeyboardInterrupt:
            for process in processes:
                process.kill()
            raise


def _trouble(url: str) -> str | None:
    """Return why no Redis answers there; ``None`` if one does."""
    import redis

    from tasks.server.trouble import trouble

    with closing(connect(url, timeout_s=2.0, attempts=1)) as client:
        try:
            client.ping()
        except redis.RedisError as error:
            return trouble(error).says
    return None

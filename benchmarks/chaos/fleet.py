"""The fleet that is to suffer: one Redis with its data on disk, workers, beat. Each process has a guard."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

import psutil
import redis

from benchmarks.chaos.links import Links
from tasks.demo.embedded import EmbeddedServer
from tasks.demo.process import GuardedProcess
from tasks.messages.registry import WorkerRecord, decode_record
from tasks.server import keys
from worker_config.settings import change_environment, environment_with

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

GRACE_S = 5.0
#: Enough of a machine for the slots that are asked for.
MACHINE = {"CELERY_MLX_CHIP": "Apple M3 Ultra", "CELERY_MLX_GPU_CORES": "80", "CELERY_MLX_MEMORY_GB": "16"}


class Fleet:
    """Workers that come back under their names after they were killed, as a supervisor would have them.

    Args:
        folder: for logs and Redis's data.
        workers: how many.
        slots: requests at once on each.
        environment: variables beside those that every fleet has.
    """

    def __init__(self, folder: Path, workers: int, slots: int, **environment: str) -> None:
        self._environment = environment
        self._folder = folder
        self._slots = slots
        self._data = folder / "redis"
        self._data.mkdir()
        self.server = EmbeddedServer(appendonly=self._data)
        self.nodes = [f"chaos-{number}@here" for number in range(workers)]
        self._workers: dict[str, GuardedProcess] = {}
        self._beat: GuardedProcess | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self.server.start()
        self._links = Links(self.server.port, 1 + len(self.nodes))
        change_environment(
            REDIS_URL=self._url(0),
            CELERY_MLX_ALLOW_FAKE="1",
            CELERY_MLX_DRAIN_TIMEOUT_S="20",
            **MACHINE,
            **self._environment,
        )
        self.client = redis.Redis.from_url(self.server.url)
        for node in self.nodes:
            self.start_worker(node)
        self.start_beat()
        self.wait_until_up(len(self.nodes))
        return self

    def __exit__(self, *_: object) -> None:
        for process in [*self._workers.values(), self._beat]:
            if process is not None:
                _signal(process, signal.SIGCONT)
                process.kill()
        self.client.close()
        self._links.__exit__()
        self.server.stop()

    def _url(self, link: int) -> str:
        return self.server.url.replace(f":{self.server.port}/", f":{self._links.ports[link]}/")

    def start_worker(self, node: str) -> None:
        """Start a worker, or start it again."""
        options = ["-n", node, "-Q", "tier-under-3B", "-c", str(self._slots), "-l", "INFO"]
        self._workers[node] = self._start(node, self._url(1 + self.nodes.index(node)), "worker", *options)

    def start_beat(self) -> None:
        """Start beat, or start it again."""
        schedule = str(self._folder / "schedule")
        self._beat = self._start("beat", self.server.url, "beat", "-s", schedule, "--pidfile=", "-l", "INFO")

    def _start(self, name: str, url: str, *command: str) -> GuardedProcess:
        line = [sys.executable, "-m", "celery", "-A", "tasks", *command]
        log = self._folder / f"{name}.log"
        return GuardedProcess(line, log=log, grace_s=GRACE_S, env=environment_with(REDIS_URL=url))

    def kill_worker(self, node: str) -> None:
        """``kill -9``, and the supervisor's restart a second later."""
        with self._lock:
            _signal(self._workers[node], signal.SIGKILL)
            self._workers[node].kill()
            time.sleep(1)
            self.start_worker(node)

    def restart_worker(self, node: str) -> None:
        """SIGTERM, a drain, and a new start: what an upgrade does."""
        with self._lock:
            process = self._workers[node]
            _signal(process, signal.SIGTERM)
            deadline = time.monotonic() + 30
            while process.running and time.monotonic() < deadline:
                time.sleep(0.1)
            process.stop()
            self.start_worker(node)

    def kill_beat(self) -> None:
        """``kill -9`` of beat, and its restart."""
        assert self._beat is not None
        _signal(self._beat, signal.SIGKILL)
        self._beat.kill()
        self.start_beat()

    def stop_worker(self, node: str, for_s: float) -> None:
        """SIGSTOP: the worker sleeps past its lease, and wakes up."""
        with self._lock:
            _signal(self._workers[node], signal.SIGSTOP)
            time.sleep(for_s)
            _signal(self._workers[node], signal.SIGCONT)

    def supervise(self) -> int:
        """Restart what has ended, as a supervisor would; how many that were."""
        ended = 0
        if self._lock.acquire(blocking=False):
            try:
                for node in [node for node, process in self._workers.items() if not process.running]:
                    self.start_worker(node)
                    ended += 1
            finally:
                self._lock.release()
        return ended

    def kill_engine(self, node: str) -> bool:
        """``kill -9`` of a worker's engine; ``False`` where there is none just now."""
        payload = self.client.hget(keys.WORKERS, node)
        record = decode_record(node, payload) if isinstance(payload, bytes) else None
        pids = [engine.pid for engine in record.engines if engine.pid] if isinstance(record, WorkerRecord) else []
        if not pids:
            return False
        try:
            os.kill(pids[0], signal.SIGKILL)
        except ProcessLookupError:  # the record is older than the engine's end
            return False
        return True

    def kill_loading_engine(self, node: str) -> bool:
        """``kill -9`` of a worker's engine, and of its replacement while that loads."""
        if not self.kill_engine(node):
            return False
        killed = set(self._engines(node))
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            for engine in set(self._engines(node)) - killed:
                with contextlib.suppress(psutil.Error):
                    engine.kill()
                    return True
            time.sleep(0.05)
        return True  # the one that was killed first is a fault, too

    def _engines(self, node: str) -> list[psutil.Process]:
        with contextlib.suppress(psutil.Error):
            children = psutil.Process(self._workers[node].pid).children(recursive=True)
            return [child for child in children if "tasks.engine" in child.cmdline()]
        return []

    def silence(self, link: int, command: str, for_s: float) -> None:
        """Have a link to Redis pass nothing for a while: 0 is the producers', 1 the first worker's."""
        self._links.tell(link, command)
        time.sleep(for_s)
        self._links.tell(link, "well")

    def forget_connections(self, link: int) -> None:
        """The connections of a link die without a word: nobody closes them."""
        self._links.tell(link, "forget")

    def roll_back(self, by_s: float) -> None:
        """``kill -9`` of Redis, and a start without what it wrote last: a power loss, or a replica that lagged."""
        saved = self._folder / "saved"
        shutil.rmtree(saved, ignore_errors=True)
        shutil.copytree(self._data, saved)
        time.sleep(by_s)
        self.server.kill()
        shutil.rmtree(self._data)
        shutil.move(saved, self._data)
        self.server.start()

    def wait_until_up(self, workers: int, timeout_s: float = 180.0) -> None:
        """Wait until so many workers are in the registry."""
        deadline = time.monotonic() + timeout_s
        while int(self.client.hlen(keys.WORKERS)) < workers:
            assert time.monotonic() < deadline, (
                f"fewer than {workers} workers after {timeout_s:g} s: see {self._folder}"
            )
            time.sleep(0.1)


def _signal(process: GuardedProcess, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, number)

"""The processes that are measured. Each has a guard, so that none outlives the run, however the run ends."""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psutil

from tasks.demo.process import GuardedProcess
from tasks.messages.registry import WorkerRecord, decode_record
from tasks.server import keys
from worker_config.settings import environment_with

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from benchmarks.bench import Bench

#: A queue of no tier has as many slots as ``-c`` says, on every machine.
QUEUE = "benchmarks"
#: With it nobody warns that the models' own tier has no worker.
TIER_QUEUE = "tier-under-3B"
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 10.0


class BenchmarkError(Exception):
    """Something that is to be measured does not work; the message says what it said last."""


def wait_for(
    condition: Callable[[], Any], about: str, process: GuardedProcess, timeout_s: float = START_TIMEOUT_S
) -> Any:
    """The first true answer of the condition.

    Raises:
        BenchmarkError: the process ended, or it took too long.
    """
    deadline = time.monotonic() + timeout_s
    while not (answer := condition()):
        if not process.running or time.monotonic() > deadline:
            ended = "it ended" if not process.running else f"not within {timeout_s:g} s"
            raise BenchmarkError(f"{about}: {ended}: {process.log_tail(5)}")
        time.sleep(0.005)
    return answer


def start(bench: Bench, name: str, command: list[str], env: Mapping[str, str] | None = None) -> GuardedProcess:
    """Start a program in a session of its own; its output goes to the run's folder."""
    log = bench.folder / f"{name}-{uuid.uuid4().hex[:8]}.log"
    return GuardedProcess(command, log=log, grace_s=STOP_TIMEOUT_S, env=environment_with(**(env or {})))


def guarded(pid: int) -> psutil.Process:
    """The process itself, where its guard may have been started with this id."""
    found = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return max(found, key=lambda process: process.memory_info().rss)


def processor_s(process: psutil.Process) -> float:
    """The processor time of a process so far."""
    user_s, system_s = process.cpu_times()[:2]
    return float(user_s + system_s)


class Worker:
    """A real ``celery -A tasks worker`` that takes the benchmarks' requests. A context manager that ends it.

    Args:
        bench: the run.
        model: loaded at start; ``None`` loads nothing.
        slots: requests at once.
        settings: further environment variables.
        launcher: the program that runs Celery's command line.
    """

    def __init__(
        self,
        bench: Bench,
        model: str | None,
        slots: int,
        settings: Mapping[str, str] | None = None,
        launcher: tuple[str, ...] = ("-m", "celery"),
    ) -> None:
        self.node = f"bench-{uuid.uuid4().hex[:8]}@here"
        self.model = model
        self._client = bench.client
        env = {"CELERY_MLX_DRAIN_TIMEOUT_S": "1", "CELERY_MLX_MAX_BATCH": str(slots)}
        if model:
            env["CELERY_MLX_MODELS"] = model
        options = ["-n", self.node, "-Q", f"{QUEUE},{TIER_QUEUE}", "-c", str(slots), "-l", "WARNING"]
        command = [sys.executable, *launcher, "-A", "tasks", "worker", *options]
        self.started_at = time.time()
        self.process = start(bench, "worker", command, {**env, **(settings or {})})

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self.process.pid

    def record(self) -> WorkerRecord | None:
        """Its record in the registry, if there is one."""
        payload = self._client.hget(keys.WORKERS, self.node)
        record = decode_record(self.node, payload) if isinstance(payload, bytes) else None
        return record if isinstance(record, WorkerRecord) else None

    def wait_for(self, condition: Callable[[WorkerRecord], Any], about: str) -> Any:
        """The first true answer about its record."""

        def look() -> Any:
            record = self.record()
            return record and condition(record)

        return wait_for(look, f"worker {self.node}: {about}", self.process)

    def wait_until_ready(self) -> None:
        """Wait until it is online and its model is loaded."""

        def ready(record: WorkerRecord) -> bool:
            return record.status == "online" and (self.model is None or self.model in record.models)

        self.wait_for(ready, "ready")

    def engine_pid(self) -> int:
        """Its engine's process id."""
        return int(self.wait_for(lambda record: record.engines and record.engines[0].pid, "an engine"))

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the worker's process alone."""
        os.kill(self.pid, number)

    def stop(self) -> None:
        """End it and its engine."""
        self.process.stop()


@contextmanager
def worker(bench: Bench, model: str | None, slots: int, settings: Mapping[str, str] | None = None) -> Iterator[Worker]:
    """A worker that is ready, for as long as the block runs."""
    worker = Worker(bench, model, slots, settings)
    try:
        worker.wait_until_ready()
        yield worker
    finally:
        worker.stop()


@contextmanager
def beat(bench: Bench) -> Iterator[GuardedProcess]:
    """``celery -A tasks beat``, once it sweeps."""
    command = [sys.executable, "-m", "celery", "-A", "tasks", "beat", "-s", str(bench.folder / "schedule")]
    bench.client.delete(keys.SWEEP)
    process = start(bench, "beat", command)
    try:
        wait_for(lambda: bench.client.exists(keys.SWEEP), "beat", process)
        yield process
    finally:
        process.stop()


class Child:
    """A program of ours that answers one JSON line with one JSON line, over a pair of named pipes."""

    def __init__(self, bench: Bench, module: str, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        folder = bench.folder / uuid.uuid4().hex[:8]
        folder.mkdir()
        for name in ("questions", "answers"):
            os.mkfifo(folder / name)
        self.process = start(
            bench, module.rpartition(".")[2], [sys.executable, "-m", module, str(folder), *arguments], env
        )
        # The child opens both in the same order; opening a pipe waits for its other end.
        self._questions = _open_when_read(folder / "questions", self.process)
        self._answers = (folder / "answers").open()

    def ask(self, question: dict[str, Any]) -> Any:
        """What the child answers.

        Raises:
            BenchmarkError: it has ended.
        """
        self._questions.write(json.dumps(question) + "\n")
        self._questions.flush()
        line = self._answers.readline()
        if not line:
            raise BenchmarkError(f"a contender ended: {self.process.log_tail(5)}")
        return json.loads(line)

    def stop(self) -> None:
        """End it."""
        self._questions.close()
        self._answers.close()
        self.process.stop()


def _open_when_read(path: Path, process: GuardedProcess) -> Any:
    def attempt() -> Any:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads yet
            return None
        os.set_blocking(descriptor, True)
        return os.fdopen(descriptor, "w")

    return wait_for(attempt, "a contender", process)


def serve(folder: Path, answer: Callable[[dict[str, Any]], Any]) -> None:
    """The child's side of :class:`Child`, until the run closes it."""
    with (folder / "questions").open() as questions, (folder / "answers").open("w") as answers:
        for line in questions:
            answers.write(json.dumps(answer(json.loads(line))) + "\n")
            answers.flush()

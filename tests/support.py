"""What several tests need: waiting for a condition, and real worker processes."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import psutil
from kombu import pools

from tasks.messages.registry import WorkerRecord, decode_record
from tasks.server import keys

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import redis

    from tasks.client.reader.chunks import Chunk
    from tasks.client.result import GenerateResult
    from tasks.generate import GenerateTask

ROOT = Path(__file__).parent.parent
#: The variable that marks every process that a test started, however far down and in whatever session.
MARK = "TEST_PROCESS_MARK"

Answer = TypeVar("Answer")


def left_of_bulk(client: Any, job_id: str = "*") -> list[str]:
    """Keys of bulk jobs' requests, without the marks that expire in a minute."""
    return [key for key in client.keys(f"*bulk-{job_id}-*") if not key.startswith(keys.collected(""))]


def wait_until(condition: Callable[[], Answer], *, timeout_s: float = 60.0, about: str = "the condition") -> Answer:
    """The first true answer of ``condition``; an assertion fails when there is none in time."""
    deadline = time.monotonic() + timeout_s
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"{about} did not come true within {timeout_s:g} s"
        time.sleep(0.01)
    return answer


def marked_processes(mark: str) -> list[psutil.Process]:
    """The living processes that carry this mark in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):  # it has just ended, or is not ours to look at
            continue
    return found


def has_ended(pid: int) -> bool:
    """Whether a process has ended, be it that its parent has not been told yet."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def lasting_port() -> int:
    """A free port that the system gives to nobody who asks for any, so that it stays free until a server listens there."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def command_of(process: psutil.Process) -> list[str]:
    """A process's command line; empty where it has just ended."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def runs_engine(mark: str) -> bool:
    """Whether an engine carries this mark."""
    return any("tasks.engine" in command_of(process) for process in marked_processes(mark))


def assert_gone(mark: str, *, timeout_s: float = 60.0) -> None:
    """No process with this mark is left after a while; what is left is killed, and the test fails."""
    deadline = time.monotonic() + timeout_s
    while (left := marked_processes(mark)) and time.monotonic() < deadline:
        time.sleep(0.02)
    about = [f"{process.pid}: {' '.join(command_of(process))[:200]}" for process in left if process.is_running()]
    for process in left:
        process.kill()
    assert not about, f"processes stayed behind: {about}"


def forget_connections() -> None:
    """Have Celery forget this process's connections: kombu keeps them, and finds out one by one that a server was restarted."""
    celery = sys.modules.get("tasks.celery")
    if celery is not None:
        pools.reset()
        celery.app._pool = celery.app.amqp._producer_pool = None


def send_unchecked(task: GenerateTask, queue: str, **values: Any) -> GenerateResult:
    """Send a request past the producer's checks, whose catalogue does not know the model."""
    sent: str = task.app.send_task(task.name, kwargs=values, queue=queue).id
    return task.AsyncResult(sent)


def commands_processed(client: redis.Redis) -> int:
    """How many commands the server has carried out, this one's own question left out."""
    info: Any = client.info("stats")
    return int(info["total_commands_processed"])


class Reader(threading.Thread):
    """Reads one request's stream to its end, on a thread that begins at once.

    Whoever joins it has its error. One that nobody joins, and that outlives its test, is no error of the next test.
    """

    def __init__(self, result: GenerateResult, timeout_s: float = 150.0) -> None:
        super().__init__(daemon=True)
        self.result = result
        self.chunks: list[Chunk] = []
        self._timeout_s = timeout_s
        self._error: Exception | None = None
        self.start()

    def run(self) -> None:
        """Read."""
        try:
            for chunk in self.result.stream(timeout=self._timeout_s):
                self.chunks.append(chunk)
        except Exception as error:  # noqa: BLE001  (it is raised where it is waited for)
            self._error = error

    def join(self, timeout: float | None = None) -> None:
        """Wait for the end, and raise what the stream raised."""
        super().join(timeout)
        if self._error is not None:
            raise self._error

    @property
    def indices(self) -> list[int]:
        """The indices of all tokens, as they came."""
        return [chunk.index + n for chunk in self.chunks for n in range(len(chunk.ids))]

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(chunk.text for chunk in self.chunks)

    @property
    def finish_reasons(self) -> list[str]:
        """How often, and how, the stream has ended."""
        return [chunk.finish_reason for chunk in self.chunks if chunk.finish_reason]

    def whole(self) -> str:
        """The text, once the stream has ended: once, and with every index once and in order."""
        self.join(self._timeout_s)
        assert len(self.finish_reasons) == 1
        assert self.indices == list(range(len(self.indices)))
        return self.text


class Worker:
    """A real ``celery -A tasks worker`` in a session of its own.

    Use the fixture ``worker``, which waits until it is ready and ends it after the test.
    """

    def __init__(
        self,
        client: redis.Redis,
        log: Path,
        args: tuple[str, ...],
        env: Mapping[str, str],
        app: str = "tasks",
        stdout: int | None = None,
    ) -> None:
        self.node = f"test-{uuid.uuid4().hex[:8]}@here"
        self.mark = uuid.uuid4().hex
        self.log_path = log
        self._client = client
        command = [sys.executable, "-m", "celery", "-A", app, "worker", "-n", self.node, "-l", "INFO", *args]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, MARK: self.mark, **env},
                stdin=subprocess.DEVNULL,
                stdout=output if stdout is None else stdout,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The worker's process id."""
        return self.process.pid

    def log(self) -> str:
        """All that the worker has said so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def record(self) -> WorkerRecord | None:
        """The worker's record in the registry, if it is there and readable."""
        payload = self._client.hget(keys.WORKERS, self.node)
        if not isinstance(payload, str | bytes):
            return None
        record = decode_record(self.node, payload)
        return record if isinstance(record, WorkerRecord) else None

    def wait_until_online(self, timeout_s: float = 90.0) -> None:
        """Return once the registry says ``online``; fail with the log if the worker ends or takes too long."""
        deadline = time.monotonic() + timeout_s
        while (record := self.record()) is None or record.status != "online" or record.pid != self.pid:
            assert self.process.poll() is None, f"worker ended with {self.process.returncode}:\n{self.log()}"
            assert time.monotonic() < deadline, f"worker not online after {timeout_s:g} s:\n{self.log()}"
            time.sleep(0.02)

    def wait(self, timeout_s: float = 60.0) -> int:
        """The exit status, once the worker has ended."""
        return self.process.wait(timeout_s)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the worker process alone."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """``kill -9`` of the worker process alone; its engines have to notice by themselves."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End the worker: SIGTERM, a second one if it drains for long, SIGKILL; nothing of it may stay behind."""
        for number, patience_s in ((signal.SIGTERM, 10.0), (signal.SIGTERM, 30.0), (signal.SIGKILL, 30.0)):
            if self.process.poll() is not None:
                break
            self.process.send_signal(number)
            try:
                self.process.wait(patience_s)
            except subprocess.TimeoutExpired:
                continue
        assert_gone(self.mark)

"""The demo's own worker: the command that a person types, under a guard that ends it with the demo."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tasks.demo.errors import SetupError
from tasks.demo.process import GuardedProcess
from tasks.messages.registry import WorkerRecord, decode_record
from tasks.names import PACKAGE
from tasks.server import keys
from worker_config.settings import environment_with

if TYPE_CHECKING:
    from redis import Redis

START_TIMEOUT_S = 180.0
STOP_TIMEOUT_S = 8.0


class DemoWorker:
    """``celery -A tasks worker -B`` with one model loaded; use it as a context manager.

    Args:
        url: the Redis it works for.
        model: the model to load at start.
    """

    def __init__(self, url: str, model: str) -> None:
        self.node = f"demo-{os.getpid()}@{socket.gethostname()}"
        self._model = model
        folder = Path(tempfile.mkdtemp(prefix="celery-mlx-"))
        schedule = folder / "schedule"
        command = [sys.executable, "-m", "celery", "-A", PACKAGE, "worker", "-B", "-s", str(schedule), "-n", self.node]
        environment = environment_with(
            REDIS_URL=url,
            CELERY_MLX_MODELS=model,
            CELERY_MLX_DRAIN_TIMEOUT_S="1",  # nobody waits for what is still running when the demo ends
        )
        with contextlib.ExitStack() as undo:
            undo.callback(shutil.rmtree, folder, ignore_errors=True)
            self._process = GuardedProcess(
                command, log=folder / "worker.log", grace_s=STOP_TIMEOUT_S, remove=folder, env=environment
            )
            self.pid = self._process.pid
            self._undo = undo.pop_all()

    def wait_until_ready(self, client: Redis) -> None:
        """Wait until the worker is online and its model is loaded.

        Raises:
            SetupError: it ended, its model cannot be loaded, or it takes too long.
        """
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._ready(client):
            self.check()
            if time.monotonic() > deadline:
                raise SetupError(f"the worker was not ready after {START_TIMEOUT_S:g} s: {self._process.log_tail(1)}")
            time.sleep(0.1)

    def check(self) -> None:
        """Raise if the worker has ended.

        Raises:
            SetupError: with the worker's last line.
        """
        if not self._process.running:
            raise SetupError(f"the worker ended: {self._process.log_tail(1) or 'it said nothing'}")

    def stop(self) -> None:
        """End the worker, its beat and its engines, and wait until they are gone."""
        try:
            self._process.stop()
        finally:
            self._undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _ready(self, client: Redis) -> bool:
        payload = client.hget(keys.WORKERS, self.node)
        if not isinstance(payload, str | bytes):
            return False
        record = decode_record(self.node, payload)
        if not isinstance(record, WorkerRecord) or record.status not in {"online", "degraded"}:
            return False
        for engine in record.engines:
            if engine.model == self._model and engine.state == "failed":
                raise SetupError(f"{self._model} cannot be loaded: {engine.reason}")
        return any(engine.model == self._model and engine.state == "ready" for engine in record.engines)

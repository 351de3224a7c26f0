"""``celery -A tasks up`` as a person types it, and as a person ends it: its data is kept, and no process stays behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import redis

from tests.processes import Program
from tests.support import MARK, ROOT, assert_gone, lasting_port, marked_processes, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(500)
WAIT_S = 90.0


@contextmanager
def up(folder: Path, port: int, *arguments: str) -> Iterator[Program]:
    """A running ``up`` with a fake model; nothing of it stays, whatever the test does."""
    environment = {name: value for name, value in os.environ.items() if name != "REDIS_URL"}
    environment |= {"CELERY_MLX_DEFAULT_MODEL": "fake:1", "CELERY_MLX_ALLOW_FAKE": "1", MARK: str(port)}
    ports = ["--redis-port", str(port), "--flower-port", str(lasting_port()), "--gateway-port", str(lasting_port())]
    log = folder / "output"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "tasks", "up", "--data", str(folder / "data"), *ports, *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Program(process, log)
    finally:
        print(log.read_text())
        process.kill()
        process.wait()
        assert_gone(str(port), timeout_s=60)


def test_everything_runs_and_nothing_stays(tmp_path: Path) -> None:
    """It says what to type next, and that works; Ctrl-C and kill -9 end all its parts; the next one has the data of the last."""
    port = lasting_port()
    _runs_until_interrupted(tmp_path, port)
    _has_the_data(tmp_path, port)


def _runs_until_interrupted(folder: Path, port: int) -> None:
    with up(folder, port) as program:
        wait_until(lambda: program.alive() and "Everything runs" in program.log(), timeout_s=WAIT_S)
        for line in (f"export REDIS_URL=redis://localhost:{port}/0", 'celery -A tasks ask "Why', "http://localhost:"):
            assert line in program.log()
        names = {line.partition(" ")[0] for line in program.log().splitlines() if " | " in line}
        assert {"redis", "worker", "beat"} <= names
        url = f"redis://localhost:{port}/0"
        command = [sys.executable, "-m", "celery", "-A", "tasks", "ask", "Why?", "-m", "fake:1", "--max-tokens", "3"]
        asked = subprocess.run(
            command, env={**os.environ, "REDIS_URL": url}, capture_output=True, text=True, timeout=WAIT_S, check=True
        )
        assert asked.stderr.strip().startswith("length: 3 tokens")
        with closing(redis.Redis(port=port)) as client:
            wait_until(lambda: _states(client) == ["SUCCESS"], about="the stored result")
        program.process.send_signal(signal.SIGINT)
        assert program.process.wait(60) == 0
        assert not marked_processes(str(port)), "each process was waited for"
        assert program.log().splitlines()[-1] == "ended"
        assert "Traceback" not in program.log()


def _has_the_data(folder: Path, port: int) -> None:
    """A second one beside it is refused; ``up()`` ends it by kill -9."""
    with up(folder, port, "--without", "flower", "--without", "beat", "--without", "gateway") as program:
        with closing(redis.Redis(port=port)) as client:
            wait_until(lambda: program.alive() and _states(client) == ["SUCCESS"], timeout_s=WAIT_S)
        second = [sys.executable, "-m", "celery", "-A", "tasks", "up", "--data", str(folder / "data")]
        environment = {**os.environ, "CELERY_MLX_DEFAULT_MODEL": "fake:1"}
        refused = subprocess.run(second, env=environment, capture_output=True, text=True, timeout=WAIT_S, check=False)
        assert refused.returncode == 1
        assert refused.stderr.startswith("Error: another one runs on ")


def _states(client: redis.Redis) -> list[str]:
    """The states of all stored results; empty while the server is not there."""
    try:
        keys: Any = client.keys("celery-task-meta-*")
        stored: Any = client.mget(keys) if keys else []
    except redis.ConnectionError:
        return []
    return [json.loads(text)["status"] for text in stored]

"""A worker that cannot start says why in one line, without a traceback, and ends with an error."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tasks.errors import BrokerUnavailable
from tests.support import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from celery import Celery

    from tasks.demo.embedded import EmbeddedServer
    from tests.conftest import StartWorker

EX_UNAVAILABLE = 69
EX_CONFIG = 78
#: What Celery imports of these two before anything of ours is loaded; neither is installed here.
GREEN = {
    "gevent/__init__.py": "",
    "gevent/monkey.py": "def patch_all(): pass",
    "gevent/signal.py": "",
    "eventlet/__init__.py": "def monkey_patch(): pass",
    "eventlet/debug.py": "",
    "greenlet.py": "GreenletExit = SystemExit",
}


def start(*args: str, **env: str) -> tuple[int, str]:
    """The exit status of a worker that is to be refused, and the line that says why."""
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "tasks", "worker", "-n", "refused@here", *args],
        cwd=ROOT,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        start_new_session=True,
    )
    said = done.stdout + done.stderr
    assert "Traceback" not in said, said
    lines = [line for line in said.splitlines() if line.startswith("celery-mlx: ")]
    assert len(lines) == 1, said
    assert said.rstrip().endswith(lines[0]), said
    return done.returncode, lines[0].removeprefix("celery-mlx: ")


class TestPools:
    """Without Redis: a pool is refused before anything is connected to."""

    @pytest.mark.parametrize(
        ("typed", "reason"),
        [
            ("-P prefork", "it would load the model once for each child process"),
            ("-Pprocesses", "it would load the model once for each child process"),
            ("--pool solo", "it runs one request at a time"),
            ("--pool=threads", "it cannot cancel a request and ignores time limits"),
        ],
    )
    def test_is_refused(self, typed: str, reason: str) -> None:
        """Each other pool is refused however it is typed, also prefork, which Celery itself would silently replace."""
        code, message = start(*typed.split())
        assert code == EX_CONFIG
        name = typed.removeprefix("--pool").removeprefix("-P").strip(" =")
        assert message.startswith(f"-P {name} cannot run an engine: {reason}")
        assert message.endswith("leave -P out")

    @pytest.mark.parametrize("name", ["eventlet", "gevent"])
    def test_green_threads_are_refused(self, name: str, tmp_path: Path) -> None:
        """Where the libraries of green threads are installed their pools are refused too."""
        for file, text in GREEN.items():
            (tmp_path / file).parent.mkdir(exist_ok=True)
            (tmp_path / file).write_text(text)
        code, message = start("-P", name, PYTHONPATH=str(tmp_path))
        assert code == EX_CONFIG
        assert message.startswith(f"-P {name} cannot run an engine: its green threads would stand still")


class TestSettings:
    def test_a_bad_variable(self) -> None:
        """A setting that cannot be read is named with its value and what was expected."""
        code, message = start(CELERY_MLX_HEARTBEAT_S="often")
        assert code == EX_CONFIG
        assert message == "CELERY_MLX_HEARTBEAT_S='often' (environment): expected a number"

    def test_out_of_bounds(self) -> None:
        """So is one that is out of bounds."""
        code, message = start(CELERY_MLX_DEAD_AFTER_S="0")
        assert code == EX_CONFIG
        assert message.startswith("CELERY_MLX_DEAD_AFTER_S (environment) is 0.0: expected at least")

    def test_a_bad_file(self, tmp_path: Path) -> None:
        """A line of the file that nobody knows is an error that says where it stands."""
        file = tmp_path / "worker.toml"
        file.write_text("heart_beat_s = 5\n")
        code, message = start(CELERY_MLX_CONFIG=str(file))
        assert code == EX_CONFIG
        assert message.startswith(f"{file}: unknown setting 'heart_beat_s'; known are ")

    @pytest.mark.usefixtures("redis_client")
    def test_a_bad_catalogue(self, tmp_path: Path) -> None:
        """A catalogue that cannot be read is named."""
        code, message = start(CELERY_MLX_CATALOGUE=str(tmp_path / "nowhere.toml"))
        assert code == EX_CONFIG
        assert str(tmp_path / "nowhere.toml") in message

    @pytest.mark.usefixtures("redis_client")
    def test_an_unknown_tier(self) -> None:
        """A misspelt queue of a tier is refused: it would wait for ever for requests that nobody sends there."""
        code, message = start("-Q", "tier-3-8B,emails")
        assert code == EX_CONFIG
        assert message.startswith("-Q tier-3-8B,emails: no tier has the queue 'tier-3-8B'; they are tier-under-3B, ")


class OldRedis:
    """Speaks just enough of the protocol to say that it is Redis 5."""

    INFO = b"redis_version:5.0.14\r\n"

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as commands:
            while line := commands.readline():
                words = []
                for _ in range(int(line[1:])):
                    commands.readline()
                    words.append(commands.readline().strip().upper())
                info = b"$%d\r\n%b\r\n" % (len(self.INFO), self.INFO)
                connection.sendall(info if words[0] == b"INFO" else b"+OK\r\n")

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)


@pytest.fixture
def old_redis() -> Iterator[OldRedis]:
    server = OldRedis()
    yield server
    server.close()


class TestRedis:
    def test_nobody_is_there(self) -> None:
        """A Redis that cannot be reached is named, without its password, with what to do."""
        code, message = start(REDIS_URL="redis://:secret@127.0.0.1:1/0")
        assert code == EX_UNAVAILABLE
        assert message.startswith("redis://:***@127.0.0.1:1/0: Redis cannot be used (")
        assert message.endswith("Connection refused): start it there, or set REDIS_URL to where it is")
        assert "secret" not in message

    def test_wrong_password(self, redis_url: str) -> None:
        """A wrong password, or none, is told from a server that is not there."""
        port = urlsplit(redis_url).port
        for url in (f"redis://:wrong@127.0.0.1:{port}/0", f"redis://127.0.0.1:{port}/0"):
            code, message = start(REDIS_URL=url)
            assert code == EX_UNAVAILABLE
            assert message.endswith("put the right user and password into REDIS_URL")
            assert "wrong@" not in message

    def test_too_old(self, old_redis: OldRedis) -> None:
        """A Redis that is older than supported is refused with both versions."""
        code, message = start(REDIS_URL=old_redis.url)
        assert code == EX_UNAVAILABLE
        assert message == f"{old_redis.url}: Redis 5.0.14 is too old: install Redis 6.2 or later, or Valkey"

    def test_no_redis_at_all(self) -> None:
        """A broker that is not Redis is refused."""
        code, message = start(REDIS_URL="amqp://guest@localhost//")
        assert code in (EX_CONFIG, EX_UNAVAILABLE)
        assert "amqp://guest@localhost//" in message


def test_a_live_namesake(worker: StartWorker) -> None:
    """A second worker of a name whose first is alive is refused; the first goes on."""
    first = worker("-Q", "tier-under-3B")
    code, message = start("-n", first.node, "-Q", "tier-under-3B")
    assert code == EX_CONFIG
    assert first.node in message
    record = first.record()
    assert record is not None
    assert record.pid == first.pid


PRODUCER = """
from tasks import generate
from tasks.errors import BrokerUnavailable
try:
    generate.delay(prompt="a")
except BrokerUnavailable as error:
    print(error)
"""


def first_delay(url: str) -> str:
    """What a producer is told by its first request."""
    done = subprocess.run(
        [sys.executable, "-c", PRODUCER],
        cwd=ROOT,
        env={**os.environ, "REDIS_URL": url},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.rstrip()


def test_redis_out_of_reach_at_delay() -> None:
    """A producer that cannot reach Redis is told at once: where it is, without its password, and what to do."""
    message = first_delay("redis://:secret@127.0.0.1:1/0")
    assert message.startswith("redis://:***@127.0.0.1:1/0: Redis cannot be used (")
    assert message.endswith("start it there, or set REDIS_URL to where it is")


def test_redis_too_old_at_delay(old_redis: OldRedis) -> None:
    """A producer whose Redis is too old is told so before anything is sent."""
    assert first_delay(old_redis.url).endswith("Redis 5.0.14 is too old: install Redis 6.2 or later, or Valkey")


def test_redis_lost_at_a_later_delay(redis_server: EmbeddedServer, producer_app: Celery) -> None:
    """A producer whose Redis goes away gets the same error class, when Celery's own patience is over."""
    from tasks import generate

    assert producer_app.conf.broker_url
    generate.apply_async(kwargs={"prompt": "a", "model": "fake:0"}, ignore_result=True)
    redis_server.stop()
    with pytest.raises(BrokerUnavailable, match="start Redis there, or set REDIS_URL to where it is"):
        generate.apply_async(kwargs={"prompt": "a", "model": "fake:0"}, ignore_result=True)

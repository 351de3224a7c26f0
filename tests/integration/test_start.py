"""A worker that cannot start says why in one line, without a traceback, and ends with an error; Flower too."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from benchmarks.parts.tiny_model import make_tiny_model
from tasks.demo.embedded import EmbeddedServer
from tasks.errors import BrokerUnavailable
from tests.refusals import EX_CONFIG, EX_UNAVAILABLE, explained, refused, start
from tests.support import ROOT, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import redis
    from celery import Celery

    from tests.conftest import StartWorker

#: What Celery imports of these two before anything of ours is loaded; neither is installed here.
GREEN = {
    "gevent/__init__.py": "",
    "gevent/monkey.py": "def patch_all(): pass",
    "gevent/signal.py": "",
    "eventlet/__init__.py": "def monkey_patch(): pass",
    "eventlet/debug.py": "",
    "greenlet.py": "GreenletExit = SystemExit",
}


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

    def test_autoscale_is_refused(self) -> None:
        """The number of slots is no number of threads that could be grown and shrunk."""
        code, message = start("--autoscale", "4,2")
        assert code == EX_CONFIG
        assert message == "--autoscale cannot be used: slots follow from the hardware, and -c caps them; leave it out"

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

    def test_a_name_that_breaks_lines(self) -> None:
        """A worker's name becomes a key, and a word of its log."""
        code, message = start("-n", "one\ntwo@here")
        assert code == EX_CONFIG
        assert message == "-n 'one\\ntwo@here': use text of 1 to 256 printable characters, as in one@%h"

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
        """A catalogue that cannot be read is named, by a worker and by ``models``."""
        for code, message in (
            start(CELERY_MLX_CATALOGUE=str(tmp_path / "nowhere.toml")),
            refused("models", CELERY_MLX_CATALOGUE=str(tmp_path / "nowhere.toml")),
        ):
            assert code == EX_CONFIG
            assert str(tmp_path / "nowhere.toml") in message

    @pytest.mark.usefixtures("redis_client")
    def test_a_malformed_catalogue(self, tmp_path: Path) -> None:
        """A field that cannot be used is named with its file, its line and its value."""
        file = tmp_path / "catalogue.toml"
        file.write_text('[[models]]\nname = "mine"\nsource = "owner/mine"\ntier = "huge"\n')
        code, message = start(CELERY_MLX_CATALOGUE=str(file))
        assert code == EX_CONFIG
        assert message.startswith(f"model catalogue {file}, line 4: models[0].tier is 'huge'")

    @pytest.mark.usefixtures("redis_client")
    @pytest.mark.parametrize(("name", "value"), [("CHIP", "Pentium"), ("GPU_CORES", "2000"), ("MEMORY_GB", "1e9")])
    def test_a_bad_override(self, name: str, value: str) -> None:
        """What no machine is is named with its value."""
        code, message = start(**{f"CELERY_MLX_{name}": value})
        assert code == EX_CONFIG
        assert message.startswith(f"CELERY_MLX_{name}=")
        assert ": expected " in message

    @pytest.mark.usefixtures("redis_client")
    def test_an_unknown_tier(self) -> None:
        """A misspelt queue of a tier is refused: it would wait for ever for requests that nobody sends there."""
        code, message = start("-Q", "tier-3-8B,emails")
        assert code == EX_CONFIG
        assert message.startswith("-Q tier-3-8B,emails: no tier has the queue 'tier-3-8B'; they are tier-under-3B, ")
        code, message = start("-Q", "tier-3-7B, emails")
        assert code == EX_CONFIG
        assert message == "-Q 'tier-3-7B, emails': ' emails' is not a queue: write names, and commas without spaces"


class OldRedis:
    """Speaks just enough of the protocol to say that it is Redis 5."""

    INFO = b"redis_version:5.0.14\r\nrole:master\r\n"

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


@pytest.fixture
def full_redis(redis_client: redis.Redis) -> Iterator[redis.Redis]:
    """The server has no room for anything, until the test is over."""
    redis_client.config_set("maxmemory", "1")
    yield redis_client
    redis_client.config_set("maxmemory", "0")


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
            assert message.endswith("): put the right user and password into REDIS_URL")
            assert ".:" not in message
            assert "wrong@" not in message

    def test_too_old(self, old_redis: OldRedis) -> None:
        """A Redis that is older than supported is refused with both versions."""
        code, message = start(REDIS_URL=old_redis.url)
        assert code == EX_UNAVAILABLE
        says = "Redis cannot be used (version 5.0.14 is too old): install Redis 6.2 or later, or Valkey"
        assert message == f"{old_redis.url}: {says}"
        assert explained("redis-is-too-old", says)

    def test_full(self, redis_url: str, full_redis: redis.Redis) -> None:
        """A Redis without room is told from one that is not there, and what makes room is said."""
        code, message = start()
        assert code == EX_UNAVAILABLE
        assert (
            "Redis cannot be used (command not allowed when used memory > 'maxmemory'): raise its maxmemory" in message
        )
        assert explained("redis-is-full", message.partition("Redis cannot be used ")[2])

    def test_a_replica(self, redis_url: str) -> None:
        """A Redis that only copies another one says which is wanted."""
        parts = urlsplit(redis_url)
        replica = (f"replicaof 127.0.0.1 {parts.port}", f"masterauth {parts.password}")
        with EmbeddedServer(config=replica) as server:
            code, message = start(REDIS_URL=server.url)
        assert code == EX_UNAVAILABLE
        assert message.endswith(f"(it is a replica of 127.0.0.1:{parts.port}): set REDIS_URL to the primary")
        assert explained("redis-is-a-replica", "Redis cannot be used (it is a replica of")

    def test_a_database_that_is_not_there(self, redis_url: str) -> None:
        """A number that this Redis has no database for is what is to be corrected."""
        code, message = start(REDIS_URL=f"{redis_url.removesuffix('/0')}/9999")
        assert code == EX_CONFIG
        assert message.endswith("end REDIS_URL with the number of one of its databases, as in /0")

    def test_a_path(self) -> None:
        """A socket's path, for which kombu would take its own transport without a word, is refused."""
        code, message = start(REDIS_URL="unix:///run/redis.sock")
        assert code == EX_CONFIG
        assert message.startswith("REDIS_URL='unix:///run/redis.sock': sockets by path are not supported; name a host")

    def test_no_redis_at_all(self) -> None:
        """A broker that is not Redis is refused."""
        code, message = start(REDIS_URL="amqp://guest@localhost//")
        assert code == EX_CONFIG
        assert message.startswith("REDIS_URL='amqp://***@localhost/***': not a URL of Redis; write redis://")


#: What is put in front of a worker's own modules to have it see another machine.
NO_MLX = """
import sys, time
sys.modules['mlx'] = sys.modules['mlx_lm'] = None
now = time.time
time.time = lambda: now() + 3600  # nothing was installed a moment ago
"""
FULL_DISK = """
import shutil
from collections import namedtuple
shutil.disk_usage = lambda _path: namedtuple("usage", "total used free")(10**12, 10**12 - 10**7, 10**7)
"""


@pytest.mark.usefixtures("redis_client")
class TestEquipment:
    """Redis is there; the machine lacks something else."""

    @pytest.fixture
    def bare(self, tmp_path: Path) -> dict[str, str]:
        """The environment of a machine without any model, and without the fake ones."""
        return {
            "CELERY_MLX_ALLOW_FAKE": "0",
            "CELERY_MLX_CACHE": str(tmp_path / "cache"),
            "HF_HOME": str(tmp_path / "home"),
            "PYTHONPATH": str(tmp_path),
        }

    def test_no_mlx(self, bare: dict[str, str], tmp_path: Path) -> None:
        """A producer's machine is told what a worker's has."""
        (tmp_path / "sitecustomize.py").write_text(NO_MLX)
        code, message = start(**bare)
        assert code == EX_CONFIG
        assert message.startswith(
            "MLX: mlx is not installed: this machine can send requests, not serve them: pip install"
        )
        assert explained("no-mlx", message)

    def test_no_model_and_no_hub(self, bare: dict[str, str]) -> None:
        """Without any model, and where the hub may not be asked, a worker could only fail requests."""
        code, message = start(**bare)
        assert code == EX_CONFIG
        assert message.startswith("no model is on this machine, and the hub may not be asked (HF_HUB_OFFLINE)")
        assert explained("no-model", message)

    def test_no_model_and_a_hub_that_is_away(self, bare: dict[str, str]) -> None:
        """Nor where it does not answer; but it may soon, so a service tries again."""
        code, message = start(**bare, HF_HUB_OFFLINE="0", HF_ENDPOINT="http://127.0.0.1:1")
        assert code == EX_UNAVAILABLE
        assert message.startswith("no model is on this machine, and the hub http://127.0.0.1:1 does not answer (")
        assert explained("no-model", message.rpartition("): ")[2])

    def test_no_room_for_a_model(self, bare: dict[str, str], tmp_path: Path) -> None:
        """A disk without room ends the start of a worker that has to fetch a model."""
        (tmp_path / "sitecustomize.py").write_text(FULL_DISK)
        for models, about in (("", "no model is"), ("qwen3-4b", "CELERY_MLX_MODELS: model 'qwen3-4b' is not")):
            code, message = start(**bare, HF_HUB_OFFLINE="0", CELERY_MLX_MODELS=models)
            assert code == EX_CONFIG
            assert message.startswith(about)
            assert message.endswith("has 0.01 GB free: make room, or set HF_HOME to a larger disk")
        assert explained("the-disk-is-full", "has 0.01 GB free: make room, or set HF_HOME to a larger disk")

    @pytest.mark.parametrize(
        ("models", "reason"),
        [
            ("fake:1,smolm2", "CELERY_MLX_MODELS: model 'smolm2' is neither in the catalogue nor allowed by a pattern"),
            ("smollm2-135m", "CELERY_MLX_MODELS: model 'smollm2-135m': "),
            ("llama-3.3-70b", "CELERY_MLX_MODELS: needs llama-3.3-70b 41.78 GB, and this worker may use 6.87 GB"),
            ("fake:1:weights_mb=4000,fake:2:weights_mb=4000", "CELERY_MLX_MODELS: needs fake:1:weights_mb=4000 4."),
            ("qwen3-4b", "CELERY_MLX_MODELS: model 'qwen3-4b' is not on this machine, and the hub may not be asked"),
        ],
    )
    def test_a_model_that_cannot_be_kept(self, bare: dict[str, str], models: str, reason: str) -> None:
        """Unknown, not here, larger than the machine, or larger together: the setting is named, and what is wrong with it."""
        offline = "0" if "llama" in models else "1"
        here = {**bare, "CELERY_MLX_ALLOW_FAKE": "1", "CELERY_MLX_MEMORY_GB": "8", "HF_HUB_OFFLINE": offline}
        code, message = start(**here, CELERY_MLX_MODELS=models)
        assert code == EX_CONFIG
        assert message.startswith(reason)


def test_the_address_of_redis(worker: StartWorker, redis_url: str) -> None:
    """Where Redis is is shown as it was written, without its password."""
    port = urlsplit(redis_url).port
    started = worker("-Q", "tier-under-3B")
    wait_until(lambda: f"Connected to redis://:**@127.0.0.1:{port}/0\n" in started.log())


def test_settings_that_were_typed(worker: StartWorker) -> None:
    """What is typed behind the command is above the environment, in the worker and in what it starts."""
    typed = ("--models", "fake:1,fake:2", "--chip", "M2 Pro", "--gpu-cores", "19", "--memory-gb", "32", "-c", "auto")
    started = worker(*typed, env={"CELERY_MLX_MODELS": "fake:3", "CELERY_MLX_MEMORY_GB": "8"})
    record = started.record()
    assert record is not None
    assert (record.hardware["chip"], record.hardware["gpu_cores"]) == ("Apple M2 Pro", 19)
    assert record.hardware["memory_bytes"] == 32 << 30
    assert record.slots["tier-7-13B"] > (os.cpu_count() or 1)  # -c auto is no bound: slots follow from the hardware
    assert "tier-7-13B" in record.queues
    kept = {("fake:1", True), ("fake:2", True)}
    wait_until(
        lambda: (now := started.record()) and {(engine.model, engine.pinned) for engine in now.engines} == kept,
        timeout_s=120,
        about="the models that were typed",
    )


def test_a_typed_setting_that_cannot_be(redis_url: str) -> None:
    """It is refused as one of the environment is."""
    assert redis_url
    assert start("--chip", "Pentium") == (
        EX_CONFIG,
        "CELERY_MLX_CHIP='Pentium': expected an Apple chip, such as 'Apple M2 Pro'",
    )
    code, message = start("--memory-gb", "much")
    assert code == EX_CONFIG
    assert message == "CELERY_MLX_MEMORY_GB='much' (environment): expected a number"


def test_a_default_model_that_is_not_here(worker: StartWorker, tmp_path: Path) -> None:
    """A worker that has a model, and not the default one, serves the one and warns of the other."""
    folder = make_tiny_model(tmp_path / "mine")
    catalogue = tmp_path / "catalogue.toml"
    catalogue.write_text(f'[[models]]\nname = "mine"\nsource = "{folder}"\ntier = "<3B"\n')
    started = worker(
        env={
            "CELERY_MLX_ALLOW_FAKE": "0",
            "CELERY_MLX_CACHE": str(tmp_path / "cache"),
            "CELERY_MLX_CATALOGUE": str(catalogue),
            "HF_HOME": str(tmp_path / "home"),
        }
    )
    assert "the default model smollm2-135m is not on this machine" in started.log()


def test_flower_s_port_is_taken(redis_url: str) -> None:
    """Flower says so in one line too, instead of its web server's traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, message = refused("flower", f"--port={port}")
    assert code == EX_UNAVAILABLE
    assert (
        message
        == f"cannot listen at 127.0.0.1, port {port} (Address already in use): choose others with --address and --port"
    )
    assert explained("the-port-is-taken", "(Address already in use): choose others with --address and --port")


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
        timeout=120,
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
    assert first_delay(old_redis.url).endswith("(version 5.0.14 is too old): install Redis 6.2 or later, or Valkey")


@pytest.mark.usefixtures("full_redis")
def test_redis_full_at_delay(redis_url: str) -> None:
    """A producer is told that Redis is full, not that it is away."""
    message = first_delay(redis_url)
    assert "(command not allowed when used memory > 'maxmemory'): raise its maxmemory" in message


def test_redis_full_at_a_later_delay(producer_app: Celery, redis_client: redis.Redis) -> None:
    """So is one that has sent before."""
    from tasks import generate

    generate.apply_async(kwargs={"prompt": "a", "model": "fake:0"}, ignore_result=True)
    redis_client.config_set("maxmemory", "1")
    try:
        with pytest.raises(
            BrokerUnavailable, match=r"cannot send to \S+ \(command not allowed .*: raise its maxmemory"
        ):
            generate.apply_async(kwargs={"prompt": "a", "model": "fake:0"}, ignore_result=True)
    finally:
        redis_client.config_set("maxmemory", "0")
    assert producer_app.conf.broker_url


def test_redis_lost_at_a_later_delay(redis_server: EmbeddedServer, producer_app: Celery) -> None:
    """A producer whose Redis goes away gets the same error class, when Celery's own patience is over."""
    from tasks import generate

    assert producer_app.conf.broker_url
    generate.apply_async(kwargs={"prompt": "a", "model": "fake:0"}, ignore_result=True)
    redis_server.stop()
    with pytest.raises(BrokerUnavailable, match="start it there, or set REDIS_URL to where it is"):
        generate.apply_async(kwargs={"prompt": "a", "model": "fake:0"}, ignore_result=True)

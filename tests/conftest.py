"""Fixtures for all tests.

``redis_url`` and ``redis_client``: a real Valkey, emptied before the test; each pytest process has one of its own.
``producer_app``: the Celery app ``tasks`` in this process; it and ``from tasks import generate`` talk to that server.
``worker``: starts real workers: ``worker("-Q", "tier-under-3B", env={"CELERY_MLX_MODELS": "fake:10"})``.
``bundled_model``: the folder of the real model, fetched into the cache once.
``redis_server``: the server itself, for tests that stop and restart it.
``shared_redis``, ``shared_app``, ``shared_worker``: the same for a whole module, whose server is emptied once; a module that
uses them uses none of the others, and is one xdist group, so that its workers are started once.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Protocol

import pytest
import redis
from hypothesis import settings as hypothesis_settings

from tasks.demo.bundled import ensure_model
from tasks.demo.embedded import EmbeddedServer
from tests.support import Worker, forget_connections, lasting_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from celery import Celery

    from tasks.generate import GenerateTask

# A shell that runs the tests in its background ignores SIGINT, and so would every process that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A shared machine is slow at times; what a test may assert is a count.
hypothesis_settings.register_profile("shared", deadline=None)
hypothesis_settings.load_profile("shared")

PASSWORD = secrets.token_urlsafe(16)

#: The variable that has a new Python process measure its own coverage (``patch = ["subprocess"]`` in pyproject.toml).
COVERAGE_CONFIG = "COVERAGE_PROCESS_CONFIG"
#: The modules whose workers, engines and commands do. Others would add little, and half as much again to the time of each
#: of their processes. All modules are measured in pytest's own processes.
TRACED = {
    "acceptance.test_up",
    *(
        f"integration.test_{name}"
        for name in (
            "bulk_command",
            "cancel",
            "control",
            "demo_worker",
            "download",
            "embed",
            "engine_process",
            "failover",
            "fleet_command",
            "gateway",
            "gateway_batches",
            "generate",
            "gguf",
            "metrics_command",
            "shutdown",
        )
    ),
}


def _reserve_port() -> socket.socket:
    """A socket that keeps a free port from being given to others until the server takes it over."""
    while True:
        reserved = socket.socket()
        try:
            reserved.bind(("127.0.0.1", lasting_port()))
        except OSError:
            reserved.close()
        else:
            return reserved


# The app reads its settings once per process, so the address is fixed before any test imports it. What the person who
# runs the tests has set for their own fleet must not be used here, above all not their Redis.
RESERVED = _reserve_port()
PORT = int(RESERVED.getsockname()[1])
KEPT = {"CELERY_MLX_CACHE"}
for name in [name for name in os.environ if name.startswith("CELERY_MLX_") and name not in KEPT]:
    del os.environ[name]
os.environ.update(
    REDIS_URL=f"redis://:{PASSWORD}@127.0.0.1:{PORT}/0",
    CELERY_MLX_ALLOW_FAKE="1",
    HF_HUB_OFFLINE="1",
    TZ="UTC",
    OPENBLAS_NUM_THREADS="1",  # other tests run beside this one
    MKL_NUM_THREADS="1",
)


def pytest_xdist_auto_num_workers() -> int:
    """Half as many again as there are processors: most tests wait for processes to start."""
    return max(3, (os.cpu_count() or 2) * 3 // 2)


@pytest.fixture(scope="module", autouse=True)
def traced_processes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Have coverage measure the module's processes, where it is one of ``TRACED``, and not otherwise."""
    with pytest.MonkeyPatch.context() as environment:
        if request.module.__name__.removeprefix("tests.") not in TRACED:
            environment.delenv(COVERAGE_CONFIG, raising=False)
        yield


def pytest_unconfigure() -> None:
    """Let go of the port where no test needed a server."""
    RESERVED.close()


@pytest.fixture(scope="session")
def session_server() -> Iterator[EmbeddedServer]:
    """The one server of this pytest process. Use ``redis_server``, which empties it."""
    RESERVED.close()
    with EmbeddedServer(password=PASSWORD, port=PORT) as server:
        yield server


@pytest.fixture
def redis_server(session_server: EmbeddedServer) -> EmbeddedServer:
    """A running, empty server; a test may stop, kill and restart it."""
    if not session_server.running:
        session_server.restart()
    forget_connections()
    with closing(redis.Redis.from_url(session_server.url)) as client:
        client.flushall()
    return session_server


@pytest.fixture
def redis_url(redis_server: EmbeddedServer) -> str:
    """The URL of a running, empty server."""
    return redis_server.url


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """A client of a running, empty server, whose answers are text."""
    with closing(redis.Redis.from_url(redis_url, decode_responses=True)) as client:
        yield client


@pytest.fixture
def producer_app(redis_url: str) -> Celery:
    """The app ``tasks`` as a producer has it, connected to a running, empty server."""
    from tasks import app

    assert app.conf.broker_url == redis_url
    return app


@pytest.fixture
def generate(producer_app: Celery) -> GenerateTask:
    """The task as a producer has it; a module that shares its worker has one of its own."""
    from tasks import generate

    assert generate.app is producer_app
    return generate


class StartWorker(Protocol):
    """The type of the fixture ``worker``."""

    def __call__(
        self, *args: str, env: Mapping[str, str] = ..., online: bool = ..., app: str = ..., stdout: int | None = ...
    ) -> Worker: ...


@pytest.fixture
def worker(redis_client: redis.Redis, tmp_path: Path) -> Iterator[StartWorker]:
    """Starts workers and waits until each is online (unless ``online=False``); ends them after the test."""
    yield from start_workers(redis_client, tmp_path)


@pytest.fixture(scope="module")
def shared_redis(session_server: EmbeddedServer) -> Iterator[redis.Redis]:
    """A client of the server, which is emptied before the module's first test; its answers are text."""
    if not session_server.running:
        session_server.restart()
    forget_connections()
    with closing(redis.Redis.from_url(session_server.url, decode_responses=True)) as client:
        client.flushall()
        yield client


@pytest.fixture(scope="module")
def shared_app(shared_redis: redis.Redis) -> Celery:
    """The app ``tasks`` as a producer has it."""
    from tasks import app

    return app


@pytest.fixture(scope="module")
def shared_worker(shared_redis: redis.Redis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartWorker]:
    """Starts workers that the module's tests share; ends them after the last."""
    yield from start_workers(shared_redis, tmp_path_factory.mktemp("workers"))


def _show_log(worker: Worker) -> None:
    """pytest shows this where the test failed, and nowhere else."""
    print(f"--- log of {worker.node} \n{worker.log()}")


def start_workers(client: redis.Redis, folder: Path) -> Iterator[StartWorker]:
    """A function that starts workers, all of which are ended after the last test that uses it."""
    started: list[Worker] = []

    def start(
        *args: str,
        env: Mapping[str, str] | None = None,
        online: bool = True,
        app: str = "tasks",
        stdout: int | None = None,
    ) -> Worker:
        member = Worker(client, folder / f"worker-{len(started)}.log", args, env or {}, app, stdout)
        started.append(member)
        if online:
            member.wait_until_online()
        return member

    yield start
    with ExitStack() as ended:  # every one of them, even where an earlier one left something behind
        for member in started:
            ended.callback(_show_log, member)
            ended.callback(member.stop)


@pytest.fixture(scope="session")
def bundled_model() -> Path:
    """The folder of the bundled model; the first test that needs it may have to wait for the download."""
    return ensure_model(lambda _about, _fraction: None)

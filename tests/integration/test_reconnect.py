"""Redis comes and goes while requests run: none is lost, none runs twice, and readers notice nothing but a pause."""

from __future__ import annotations

import json
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import redis

from tasks.demo.embedded import EmbeddedServer
from tasks.engine.fake import fake_text
from tasks.server import keys
from tests.conftest import PASSWORD, PORT, start_workers
from tests.durable import in_place_of
from tests.support import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from celery import Celery

    from tasks.client.result import GenerateResult
    from tasks.generate import GenerateTask
    from tests.conftest import StartWorker
    from tests.support import Worker

# Celery 5.7 stores and reads results with commands that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning")

WAIT_S = 90.0
#: Slow enough for what happens meanwhile on a busy machine.
MODEL = "fake:40"
QUEUE = "tier-under-3B"
TOKENS = 400


@pytest.fixture
def durable_server(session_server: EmbeddedServer, tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server that remembers everything over a restart, in the other one's place."""
    (tmp_path / "redis").mkdir()
    server = EmbeddedServer(password=PASSWORD, port=PORT, appendonly=tmp_path / "redis")
    with in_place_of(session_server, server):
        yield server


@pytest.fixture
def durable_client(durable_server: EmbeddedServer) -> Iterator[redis.Redis]:
    with closing(redis.Redis.from_url(durable_server.url, decode_responses=True)) as client:
        yield client


@pytest.fixture
def durable_worker(durable_client: redis.Redis, tmp_path: Path) -> Iterator[StartWorker]:
    yield from start_workers(durable_client, tmp_path)


class Load:
    """Four requests that run, with a reader each, two that wait in the queue, and one that waits for its time."""

    def __init__(self, worker: Worker, client: redis.Redis) -> None:
        from tasks import generate

        self._client = client
        self.worker = worker
        record = worker.record()
        assert record is not None
        self._held = keys.unacked(record.identity)
        self.later = self._send(generate, "later", max_tokens=5, countdown=6)
        assert client.zcard(keys.scheduled(QUEUE)) == 1
        self.running = [self._send(generate, f"r{number}") for number in range(4)]
        self.texts: dict[str, str] = {}
        self.errors: list[BaseException] = []
        self._readers = [threading.Thread(target=self._read, args=(result,), daemon=True) for result in self.running]
        for reader in self._readers:
            reader.start()
        for result in self.running:
            next(iter(result.stream(timeout=WAIT_S)))
        self.waiting = [self._send(generate, f"w{number}", max_tokens=5) for number in range(2)]

    def go_on(self) -> None:
        """Wait until the first request has some entries more than now."""
        stream = keys.stream(self.running[0].id)
        before: Any = self._client.xlen(stream)
        wait_until(lambda: int(self._client.xlen(stream)) > before + 3)

    @staticmethod
    def _send(generate: GenerateTask, prompt: str, max_tokens: int = TOKENS, **options: Any) -> GenerateResult:
        values = {"prompt": prompt, "model": MODEL, "max_tokens": max_tokens}
        return generate.apply_async(kwargs=values, **options)

    def _read(self, result: GenerateResult) -> None:
        try:
            indices: list[int] = []
            said = ""
            for chunk in result.stream(timeout=WAIT_S):
                indices += range(chunk.index, chunk.index + len(chunk.ids))
                said += chunk.text
            assert indices == list(range(TOKENS))
            self.texts[result.id] = said
        except BaseException as error:  # noqa: BLE001  (told by the test's own thread)
            self.errors.append(error)

    def assert_answered(self, *, queued_too: bool = True) -> None:
        """Everybody gets the whole answer of one attempt, and nothing is left behind."""
        for reader in self._readers:
            reader.join(WAIT_S)
        assert self.errors == []
        for number, result in enumerate(self.running):
            assert self.texts[result.id] == fake_text(f"r{number}", None, TOKENS)
            self._assert_result(result, self.texts[result.id])
        if queued_too:
            for number, result in enumerate(self.waiting):
                self._assert_result(result, fake_text(f"w{number}", None, 5))
            self._assert_result(self.later, fake_text("later", None, 5))
        wait_until(lambda: not self._client.exists(self._held, QUEUE))
        assert self.worker.process.poll() is None

    def _assert_result(self, result: GenerateResult, text: str) -> None:
        wait_until(result.ready, timeout_s=WAIT_S)
        answer = result.get(timeout=WAIT_S)
        assert (answer["text"], answer["attempt"]) == (text, 1)
        entries: Any = self._client.xrange(keys.stream(result.id))
        assert [json.loads(fields["d"])["type"] for _, fields in entries].count("claim") == 1


def cut_connections(client: redis.Redis) -> None:
    """Have the server close every connection but ours."""
    for kind in ("normal", "pubsub"):
        client.client_kill_filter(_type=kind, skipme=True)


def test_killed_connections(worker: StartWorker, producer_app: Celery, redis_client: redis.Redis) -> None:
    """Connections that are cut in the middle of everything, twice, cost nobody anything."""
    load = Load(worker("-c", "4", "-Q", QUEUE), redis_client)
    for _ in range(2):
        cut_connections(redis_client)
        load.go_on()
    load.assert_answered()
    assert "redelivered" not in load.worker.log()  # which Celery says of what runs, and is not so
    assert producer_app.conf.broker_url


def test_a_restart(durable_worker: StartWorker, durable_server: EmbeddedServer, durable_client: redis.Redis) -> None:
    """A server that is away for a while, and remembers, costs a pause: what ran goes on, what waited still waits."""
    load = Load(durable_worker("-c", "4", "-Q", QUEUE), durable_client)
    durable_server.stop()
    wait_until(lambda: "trying again" in load.worker.log())
    durable_server.start()
    load.assert_answered()


def test_a_restart_that_forgets(
    worker: StartWorker, redis_server: EmbeddedServer, producer_app: Celery, redis_client: redis.Redis
) -> None:
    """A server that has forgotten everything is told again what runs: its readers and results lack nothing."""
    load = Load(worker("-c", "4", "-Q", QUEUE), redis_client)
    redis_server.restart()
    load.assert_answered(queued_too=False)
    wait_until(load.worker.record, about="the worker's record")
    again = Load._send(producer_app.tasks["tasks.generate"], "again", max_tokens=5)
    assert again.get(timeout=WAIT_S)["text"] == fake_text("again", None, 5)

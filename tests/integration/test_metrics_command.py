"""``celery -A tasks metrics`` as Prometheus meets it: a real server, real workers, and a large fleet."""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest

from tasks import generate
from tasks.cli.exporter.families import scrape
from tasks.messages.registry import encode_record
from tasks.server import keys
from tasks.server.connection import connect
from tests.fleet import Ghost
from tests.support import ROOT, wait_until
from tests.unit.cli.test_exporter import Samples, parsed, value, view

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import redis
    from celery import Celery

    from tasks.demo.embedded import EmbeddedServer
    from tests.conftest import StartWorker

COMMAND = (sys.executable, "-m", "celery", "-A", "tasks", "metrics")
SECRET = "a-prompt-that-nobody-may-see"


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A client that answers in bytes."""
    with closing(connect(redis_url)) as client:
        yield client


@pytest.fixture
def served(redis_url: str, tmp_path: Path) -> Iterator[Callable[[], Samples]]:
    """The command, serving; what comes back scrapes it."""
    log = tmp_path / "metrics.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*COMMAND, "--port", "0"], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        said = wait_until(lambda: log.read_text() or process.poll(), about="the metrics server")
        assert isinstance(said, str), f"it ended with {said}"
        url = said.split()[-1]

        def look() -> Samples:
            with urlopen(url, timeout=20) as answer:  # noqa: S310  (http: the command has printed it)
                return parsed(answer.read())

        yield look
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert "Traceback" not in log.read_text()
    finally:
        process.kill()
        process.wait()
        print(log.read_text())


def test_a_fleet_at_work(
    served: Callable[[], Samples], worker: StartWorker, producer_app: Celery, redis_client: redis.Redis
) -> None:
    """Requests to a real worker are counted, nothing of them shows, and a worker that leaves takes its series along."""
    node = worker(env={"CELERY_MLX_HEARTBEAT_S": "0.1"}).node
    results = [generate.delay(prompt=SECRET, model="fake:1", max_tokens=5) for _ in range(3)]
    for result in results:
        result.get(timeout=60)
    about = {"worker": node, "model": "fake:1"}
    done = ("request_success_total", tuple(sorted({**about, "outcome": "succeeded"}.items())))
    wait_until(lambda: served().get(done) == 3, about="three requests in the metrics")
    samples = served()
    assert value(samples, "generation_tokens_total", **about) == 15
    assert value(samples, "request_attempts_total", **about) == 3
    assert value(samples, "e2e_request_latency_seconds_count", worker=node) == 3
    assert value(samples, "inter_token_latency_seconds_count", worker=node) == 12
    assert value(samples, "worker_status", worker=node, status="online") == 1
    assert value(samples, "queue_workers", queue="tier-under-3B") == 1
    assert SECRET not in str(samples)
    assert not any(result.id in str(samples) for result in results)

    left = worker()
    wait_until(lambda: any(dict(key).get("worker") == left.node for _, key in served()), about="the second worker")
    left.stop()
    wait_until(lambda: not any(dict(key).get("worker") == left.node for _, key in served()), about="its series gone")


def test_redis_may_come_and_go(served: Callable[[], Samples], redis_server: EmbeddedServer) -> None:
    """While it is away that is all that is said, and nothing has to be started again."""
    assert value(served(), "redis_up") == 1
    redis_server.stop()
    assert served() == {("redis_up", ()): 0}
    redis_server.restart()
    wait_until(lambda: value(served(), "redis_up") == 1, about="Redis in the metrics")


def run(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *args],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_once_prints_and_ends(client: redis.Redis) -> None:
    """For a look by hand."""
    with Ghost(client):
        done = run("--once")
    assert done.returncode == 0, done.stderr
    assert value(parsed(done.stdout.encode()), "worker_status", worker="mac@lab", status="online") == 1


def test_what_goes_wrong_is_one_line() -> None:
    """No Redis, and a port that is taken: a line that says what to do, no traceback."""
    with (
        socket.socket() as taken
    ):  # bound, but nobody listens: a server cannot have it, and a client is refused at once
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
        for status, done in ((69, run("--once", REDIS_URL=f"redis://127.0.0.1:{port}/0")), (1, run("--port", port))):
            assert done.returncode == status
            assert done.stdout == ""
            assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert "choose others with --address and --port" in done.stderr


def register(client: redis.Redis, count: int) -> None:
    """Records of so many workers that have answered requests."""
    now = time.time()
    pipeline = client.pipeline()
    for number in range(count):
        record = view(f"mac-{number}@lab").record
        times = {"started_at": now, "beat_at": now, "loop_at": now}
        pipeline.hset(keys.WORKERS, record.node, json.dumps(json.loads(encode_record(record)) | times))
        pipeline.set(keys.alive(record.identity), "1", ex=600)
    pipeline.execute()


def test_500_workers_are_one_answer(client: redis.Redis, redis_client: redis.Redis) -> None:
    """All of them, for the same few commands that one worker takes. It takes 0.4 s of a processor's time."""
    register(client, 1)
    few = min(_commands(redis_client, client) for _ in range(3))
    register(client, 500)
    many = min(_commands(redis_client, client) for _ in range(3))
    assert many == few
    costs = []
    for _ in range(3):
        started = time.thread_time()
        body = scrape(client)
        costs.append(time.thread_time() - started)
    samples = parsed(body)
    assert sum(count for (name, key), count in samples.items() if ("status", "online") in key) == 500
    assert min(costs) < 5.0


def _commands(counting: redis.Redis, client: redis.Redis) -> int:
    """How many commands one scrape is."""

    def total() -> int:
        return int(counting.info("stats")["total_commands_processed"])

    before = total()
    scrape(client)
    return total() - before


def test_memory_is_flat_over_a_thousand_scrapes(client: redis.Redis) -> None:
    """Not a single object is kept from one scrape to the next, by us or by what we call."""
    register(client, 1)
    for _ in range(50):
        scrape(client)
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(1000):
        scrape(client)
    gc.collect()
    assert sys.getallocatedblocks() - before < 1000

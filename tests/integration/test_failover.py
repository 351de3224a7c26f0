"""What dies under a running request: its worker, its engine, Redis, a connection. Its reader sees a pause and nothing else."""

from __future__ import annotations

import json
import os
import signal
import uuid
from typing import TYPE_CHECKING

import pytest

from tasks.engine.fake import fake_text
from tasks.server import keys
from tests.line import Line
from tests.support import Reader, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    import redis

    from tasks.demo.embedded import EmbeddedServer
    from tasks.generate import GenerateTask
    from tests.conftest import StartWorker
    from tests.support import Worker

WAIT_S = 150.0
#: What it answers takes 8 s; what the other one does is computed one after another, so that it has to take less.
MODEL, QUICK = "fake:50", "fake:20"
TOKENS = 150
THOUGHT = 100
STREAMS = 8
ENV = {"CELERY_MLX_MODELS": MODEL, "CELERY_MLX_HEARTBEAT_S": "0.5", "CELERY_MLX_DEAD_AFTER_S": "8"}
QUICK_ENV = {**ENV, "CELERY_MLX_MODELS": QUICK}
#: A worker that claims a request only once another delivery has been fetched, and notes what it computes.
LATE_CLAIMS = """
import time
from pathlib import Path
from tasks.celery import app
from tasks.worker.attempts.claims import Claims
from tasks.worker.engines.engine import Engine
serve, submit = Claims.serve, Engine.submit
def late(claims, model, engine):
    serve(claims, model, engine)
    serves = Path({folder!r}, "serves")
    deadline = time.monotonic() + (0 if serves.exists() else 30)
    serves.touch()
    while not claims._claims and time.monotonic() < deadline:
        time.sleep(0.01)
def counted(engine, attempt, message):
    with Path({folder!r}, "computed").open("a") as file:
        file.write(f"{{attempt.number}}\\n")
    submit(engine, attempt, message)
Claims.serve, Engine.submit = late, counted
"""


def prompt(n: int) -> str:
    """What stream ``n`` is asked; every second one thinks first, so that faults come in mid-thought too."""
    return f"!think@{THOUGHT} p{n}" if n % 2 else f"p{n}"


def read_all(generate: GenerateTask, streams: int = STREAMS, model: str = MODEL) -> list[Reader]:
    """Streams that have all begun."""
    sent = [generate.delay(prompt=prompt(n), model=model, max_tokens=TOKENS, seed=n) for n in range(streams)]
    readers = [Reader(result) for result in sent]
    wait_until(
        lambda: all(reader.indices for reader in readers), timeout_s=WAIT_S, about="a first token of each stream"
    )
    return readers


def assert_whole(readers: list[Reader]) -> None:
    """Each stream has every index once and in order, the uninterrupted run's text of each kind, and one end."""
    for n, reader in enumerate(readers):
        reader.join(WAIT_S)
        assert reader.indices == list(range(TOKENS))
        assert reader.text == fake_text(prompt(n), n, TOKENS)
        assert reader.finish_reasons == ["length"]
        answer = reader.result.get(timeout=WAIT_S)
        thought = fake_text(prompt(n), n, THOUGHT) if n % 2 else ""
        assert (answer["reasoning"] or "", answer["text"]) == (thought, reader.text.removeprefix(thought))
        assert "".join(chunk.text for chunk in reader.chunks if chunk.kind == "reasoning") == thought
        assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == (THOUGHT if n % 2 else 0)


def crashes(client: redis.Redis, readers: list[Reader]) -> list[int]:
    """How many deaths each request's last claim counts."""
    from tasks.journal.writer import Journal
    from tasks.messages.journal import Claim
    from tasks.server.connection import connect

    journal = Journal(connect(readers[0].result.app))
    assert client.ping()
    claims = [[entry for entry in journal.read(reader.result.id) if isinstance(entry, Claim)] for reader in readers]
    return [claim[-1].crashes for claim in claims]


def two_workers(worker: StartWorker, tmp_path: Path) -> tuple[Worker, Worker]:
    """Two workers with room for half of the streams each, so that both have some; the first sweeps too."""
    half = ("-c", str(STREAMS // 2))
    return worker("-B", "-s", str(tmp_path / "beat"), *half, env=ENV), worker(*half, env=ENV)


class TestWorker:
    """A worker that is gone."""

    def test_killed(
        self, generate: GenerateTask, worker: StartWorker, redis_client: redis.Redis, tmp_path: Path
    ) -> None:
        """After kill -9 of one of two workers the other goes on after the last token of each of its streams."""
        survivor, victim = two_workers(worker, tmp_path)
        readers = read_all(generate)
        wait_until(lambda: redis_client.hlen(keys.unacked(_identity(victim))), about="a request on the victim")
        victim.kill()
        assert_whole(readers)
        continued = [reader for reader in readers if reader.result.get()["attempt"] == 2]
        assert {reader.result.get()["worker"] for reader in continued} == {survivor.node}
        assert redis_client.hkeys(keys.WORKERS) == [survivor.node]

    def test_asleep_past_its_lease(
        self, generate: GenerateTask, worker: StartWorker, redis_client: redis.Redis, tmp_path: Path
    ) -> None:
        """A worker that was stopped past its lease appends nothing once it is woken, and serves again, though much waits."""
        survivor, sleeper = two_workers(worker, tmp_path)
        readers = read_all(generate)
        wait_until(lambda: redis_client.hlen(keys.unacked(_identity(sleeper))), about="a request on the sleeper")
        sleeper.signal(signal.SIGSTOP)
        assert_whole(readers)
        long = [generate.delay(prompt="x", model=MODEL, max_tokens=8_000) for _ in range(STREAMS)]
        held_by_survivor = keys.unacked(_identity(survivor))
        wait_until(lambda: redis_client.hlen(held_by_survivor) == STREAMS // 2, about="a full survivor")
        sleeper.signal(signal.SIGCONT)
        wait_until(lambda: (record := sleeper.record()) and record.status == "online", about="the sleeper's return")
        wait_until(lambda: (record := sleeper.record()) and record.busy, about="a request on the sleeper")
        for result in long:
            result.revoke(terminate=True)
        assert_whole([Reader(reader.result) for reader in readers])
        assert max(reader.result.get()["attempt"] for reader in readers) == 2

    def test_cut_off(
        self, generate: GenerateTask, worker: StartWorker, redis_client: redis.Redis, redis_url: str, tmp_path: Path
    ) -> None:
        """A worker whose network is cut past its lease loses its requests to another; what it sends late changes nothing."""
        with Line(redis_url) as network:
            half = ("-c", str(STREAMS // 2))
            survivor = worker("-B", "-s", str(tmp_path / "beat"), *half, env=ENV)
            cut_off = worker(*half, env={**ENV, "REDIS_URL": network.url})
            readers = read_all(generate)
            wait_until(lambda: redis_client.hlen(keys.unacked(_identity(cut_off))), about="a request on the other side")
            network.go_silent()
            assert_whole(readers)
            continued = [reader for reader in readers if reader.result.get()["attempt"] == 2]
            assert {reader.result.get()["worker"] for reader in continued} == {survivor.node}
            assert redis_client.hkeys(keys.WORKERS) == [survivor.node]
            network.heal()
            wait_until(
                lambda: (record := cut_off.record()) and record.status == "online",
                timeout_s=WAIT_S,
                about="the return of the worker that was cut off",
            )
            assert_whole([Reader(reader.result) for reader in readers])
            survivor.stop()
            again = read_all(generate)
            assert_whole(again)
            assert {reader.result.get()["worker"] for reader in again} == {cut_off.node}
            cut_off.stop()

    def test_restarted_in_order(
        self, generate: GenerateTask, worker: StartWorker, redis_client: redis.Redis, tmp_path: Path
    ) -> None:
        """A second SIGTERM hands the running requests back; another worker goes on, and no crash is counted."""
        _, leaver = two_workers(worker, tmp_path)
        readers = read_all(generate)
        wait_until(lambda: redis_client.hlen(keys.unacked(_identity(leaver))), about="a request on the leaver")
        leaver.signal(signal.SIGTERM)
        wait_until(lambda: (record := leaver.record()) and record.status == "draining", about="the drain")
        leaver.signal(signal.SIGTERM)
        assert leaver.wait() == 0
        assert_whole(readers)
        assert crashes(redis_client, readers) == [0] * STREAMS
        assert max(reader.result.get()["attempt"] for reader in readers) == 2

    def test_drains(self, generate: GenerateTask, worker: StartWorker, redis_client: redis.Redis) -> None:
        """The first SIGTERM takes nothing new, lets what runs end, keeps control alive, and exits with 0."""
        only = worker("-c", str(STREAMS + 1), env=ENV)
        long = Reader(generate.delay(prompt="long", model=MODEL, max_tokens=5000))
        readers = read_all(generate)
        wait_until(lambda: long.indices, timeout_s=WAIT_S, about="a first token")
        only.signal(signal.SIGTERM)
        wait_until(lambda: (record := only.record()) and record.status == "draining", about="the drain")
        late = generate.delay(prompt="late", model=MODEL, max_tokens=1)
        wait_until(lambda: generate.app.control.ping(timeout=2, destination=[only.node]))
        long.result.revoke(terminate=True)
        long.join(WAIT_S)
        assert long.finish_reasons == ["cancelled"]
        for reader in readers:
            reader.join(WAIT_S)
            assert reader.finish_reasons == ["length"]
        assert only.wait() == 0
        assert redis_client.hlen(keys.WORKERS) == 0
        assert late.position() is not None


class TestEngine:
    """An engine that is gone, with its worker alive."""

    def test_killed(self, generate: GenerateTask, worker: StartWorker, redis_client: redis.Redis) -> None:
        """The worker replaces it, and each stream goes on after its last token, with one crash to its account."""
        node = worker("-c", str(STREAMS), env=ENV)
        readers = read_all(generate)
        os.kill(_engine_pid(node), signal.SIGKILL)
        assert_whole(readers)
        assert crashes(redis_client, readers) == [1] * STREAMS

    def test_stuck(self, generate: GenerateTask, worker: StartWorker) -> None:
        """An engine that has work and makes no step is replaced: health is progress, not a process being there."""
        node = worker("-c", str(STREAMS), env={**ENV, "CELERY_MLX_STALL_TIMEOUT_S": "5"})
        readers = read_all(generate)
        os.kill(_engine_pid(node), signal.SIGSTOP)
        assert_whole(readers)

    def test_poison(self, generate: GenerateTask, worker: StartWorker) -> None:
        """A request that kills its engine each time fails alone: its neighbours are all answered."""
        worker("-c", str(STREAMS), env=QUICK_ENV)
        poison = generate.delay(prompt="!crash@2", model=QUICK, max_tokens=TOKENS)
        readers = read_all(generate, model=QUICK)
        with pytest.raises(Exception, match="engines or workers died while they ran this request"):
            poison.get(timeout=WAIT_S)
        assert_whole(readers)

    def test_poison_that_is_not_tokenised(self, generate: GenerateTask, worker: StartWorker) -> None:
        """The same of one that kills its engine before its first step, while others run."""
        worker("-c", "4", env=QUICK_ENV)
        readers = read_all(generate, 3, QUICK)
        poison = generate.delay(prompt="!die", model=QUICK, max_tokens=TOKENS)
        with pytest.raises(Exception, match="engines or workers died while they ran this request"):
            poison.get(timeout=WAIT_S)
        assert_whole(readers)


def test_delivered_twice_to_one_worker(generate: GenerateTask, worker: StartWorker, redis_client: redis.Redis) -> None:
    """The second delivery waits for the first one's end and says the same; it is computed once, and nothing is left behind."""
    node = worker("-c", "2", env=ENV)
    reader = Reader(generate.delay(prompt="p0", model=MODEL, max_tokens=TOKENS, seed=0))
    wait_until(lambda: reader.indices, about="a first token")
    held = keys.unacked(_identity(node))
    (message,) = redis_client.hvals(held)
    raw, _, queue = json.loads(message)
    redis_client.rpush(queue, json.dumps(raw))
    wait_until(lambda: (record := node.record()) is not None and sum(record.busy.values()) == 2)
    assert redis_client.hlen(held) == 1
    assert_whole([reader])
    assert reader.result.get()["attempt"] == 1
    wait_until(lambda: not redis_client.exists(held, queue), about="an end of both")
    assert crashes(redis_client, [reader]) == [0]


def test_delivered_twice_while_its_model_comes(
    generate: GenerateTask, worker: StartWorker, redis_client: redis.Redis, tmp_path: Path
) -> None:
    """The second delivery is claimed as it is fetched, before the first one's thread has claimed: one of them is computed."""
    (tmp_path / "late_claims.py").write_text(LATE_CLAIMS.format(folder=str(tmp_path)))
    env = {**ENV, "CELERY_MLX_MODELS": "", "PYTHONPATH": str(tmp_path)}
    node = worker("-c", "2", env=env, app="late_claims")
    task_id = str(uuid.uuid4())
    kwargs = {"prompt": prompt(0), "model": QUICK, "max_tokens": TOKENS, "seed": 0}
    readers = [Reader(generate.apply_async(kwargs=kwargs, task_id=task_id))]
    wait_until((tmp_path / "serves").exists, about="a model for the first delivery")
    readers.append(Reader(generate.apply_async(kwargs=kwargs, task_id=task_id)))
    for reader in readers:
        assert_whole([reader])
    wait_until(lambda: not redis_client.exists(keys.unacked(_identity(node))), about="an end of both")
    assert (tmp_path / "computed").read_text().split() == ["2"]


class TestRedis:
    """Redis, or the way to it."""

    def test_connections_dropped(self, generate: GenerateTask, worker: StartWorker, redis_client: redis.Redis) -> None:
        """Every connection dropped at once: no running request is lost or run twice."""
        worker("-c", str(STREAMS), env=ENV)
        readers = read_all(generate)
        for kind in ("normal", "pubsub"):
            redis_client.client_kill_filter(_type=kind, skipme=True)
        assert_whole(readers)
        assert [reader.result.get()["attempt"] for reader in readers] == [1] * STREAMS

    def test_restarted_without_its_data(
        self, generate: GenerateTask, worker: StartWorker, redis_server: EmbeddedServer
    ) -> None:
        """What runs while Redis loses everything ends with its whole text, and new requests are answered."""
        worker("-c", str(STREAMS), env=ENV)
        readers = read_all(generate)
        redis_server.restart()
        assert_whole(readers)
        after = generate.delay(prompt="after", model=MODEL, max_tokens=2)
        assert after.get(timeout=WAIT_S)["text"] == fake_text("after", None, 2)

    def test_waiting_for_its_time(self, generate: GenerateTask, worker: StartWorker, redis_client: redis.Redis) -> None:
        """A request with a countdown is answered although every connection drops meanwhile."""
        worker("-c", "2", env=ENV)
        later = generate.apply_async(kwargs={"prompt": "later", "model": MODEL, "max_tokens": 2}, countdown=4)
        assert redis_client.zcard(keys.scheduled("tier-under-3B")) == 1
        redis_client.client_kill_filter(_type="normal", skipme=True)
        assert later.get(timeout=WAIT_S)["text"] == fake_text("later", None, 2)


def _engine_pid(node: Worker) -> int:
    """Of the only engine, once its worker has said which it is."""

    def said() -> int | None:
        record = node.record()
        return record.engines[0].pid if record is not None and record.engines else None

    pid = wait_until(said, about="the engine's process")
    assert pid is not None
    return pid


def _identity(node: Worker) -> str:
    record = node.record()
    assert record is not None
    return record.identity

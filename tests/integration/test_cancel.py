"""Ends before the end: cancelled, out of time, expired. Each frees its slot at once and ends its stream."""

from __future__ import annotations

import json
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from celery.exceptions import TaskRevokedError, TimeLimitExceeded

from tasks.engine.fake import fake_text
from tasks.errors import DeadlineExceeded, Expired
from tasks.server import keys
from tests.support import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis
    from celery import Celery

    from tasks.client.reader.chunks import Chunk
    from tasks.client.result import GenerateResult
    from tasks.generate import GenerateTask
    from tests.conftest import StartWorker
    from tests.support import Worker

pytestmark = pytest.mark.xdist_group("cancel")
WAIT_S = 60.0
MODEL = "fake:10"
WIDE = "fake:10@13-27B"
#: Ten seconds of it at the least: it never ends by itself within a test.
LONG: dict[str, Any] = {"model": MODEL, "max_tokens": 5000}


@pytest.fixture(scope="module")
def generate(shared_app: Celery) -> GenerateTask:
    from tasks import generate

    return generate


@pytest.fixture(scope="module", autouse=True)
def node(shared_worker: StartWorker) -> Worker:
    """A worker with a single slot, so that a slot which is not freed stops everything that follows."""
    env = {"CELERY_MLX_MODELS": MODEL, "CELERY_MLX_HEARTBEAT_S": "0.2"}
    return shared_worker("-c", "1", "-Q", "tier-under-3B", env=env)


@pytest.fixture
def running(generate: GenerateTask) -> Iterator[GenerateResult]:
    """A long request that has the slot and has begun to answer."""
    result = generate.delay(prompt="running", **LONG)
    next(iter(result.stream(timeout=WAIT_S)))
    yield result
    if not result.ready():
        result.revoke(terminate=True)


@pytest.fixture(autouse=True)
def slot_is_free(node: Worker, generate: GenerateTask) -> Iterator[None]:
    """After each test the worker's slot is free, and its next request is answered."""
    yield
    assert generate.delay(prompt="next", model=MODEL, max_tokens=1).get(timeout=WAIT_S)["text"] == fake_text(
        "next", None, 1
    )
    wait_until(lambda: (record := node.record()) is not None and not record.busy)


def read(result: GenerateResult) -> list[Chunk]:
    return list(result.stream(timeout=WAIT_S))


def text_of(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


class TestRevoke:
    def test_running(self, running: GenerateResult) -> None:
        """A cancelled request's stream ends with what was generated and says so; ``get`` raises what Celery raises."""
        chunks: list[Chunk] = []
        for chunk in running.stream(timeout=WAIT_S):
            chunks.append(chunk)
            if len(chunks) == 3:
                running.revoke(terminate=True)
        last = chunks[-1]
        assert last.finish_reason == "cancelled"
        assert last.usage is not None
        tokens = last.usage["completion_tokens"]
        assert 3 <= tokens == sum(len(chunk.ids) for chunk in chunks) < 5000
        assert text_of(chunks) == fake_text("running", None, tokens)
        with pytest.raises(TaskRevokedError):
            running.get(timeout=WAIT_S)
        assert running.state == "REVOKED"

    def test_running_by_control(self, running: GenerateResult, shared_app: Celery) -> None:
        """Celery's own broadcast does the same, for whoever knows the id alone (Flower's Terminate)."""
        shared_app.control.revoke(running.id, terminate=True)
        assert read(running)[-1].finish_reason == "cancelled"
        with pytest.raises(TaskRevokedError):
            running.get(timeout=WAIT_S)

    def test_running_without_terminate(self, generate: GenerateTask) -> None:
        """Without ``terminate`` what has begun goes on to its end, as with every Celery task."""
        result = generate.delay(prompt="goes on", model=MODEL, max_tokens=50)
        stream = result.stream(timeout=WAIT_S)
        next(stream)
        result.revoke()
        assert [*stream][-1].finish_reason == "length"
        assert result.get(timeout=WAIT_S)["text"] == fake_text("goes on", None, 50)

    @pytest.mark.parametrize("terminate", [True, False])
    def test_queued(
        self, running: GenerateResult, generate: GenerateTask, shared_redis: redis.Redis, terminate: bool
    ) -> None:
        """A request that waits in its queue is never run: its stream ends as cancelled, and nothing is left of it."""
        queued = generate.delay(prompt="queued", **LONG)
        queued.revoke(terminate=terminate)
        running.revoke(terminate=True)
        (chunk,) = read(queued)
        assert (chunk.text, chunk.finish_reason) == ("", "cancelled")
        with pytest.raises(TaskRevokedError):
            queued.get(timeout=WAIT_S)
        wait_until(lambda: not shared_redis.hexists(keys.LEDGER, queued.id))  # no sweep is there to delete it

    def test_queued_by_control(self, running: GenerateResult, generate: GenerateTask, shared_app: Celery) -> None:
        """Celery's own broadcast alone ends a waiting request's stream too."""
        queued = generate.delay(prompt="queued", **LONG)
        shared_app.control.revoke(queued.id)
        running.revoke(terminate=True)
        assert [chunk.finish_reason for chunk in read(queued)] == ["cancelled"]
        with pytest.raises(TaskRevokedError):
            queued.get(timeout=WAIT_S)

    @pytest.mark.parametrize("terminate", [True, False])
    def test_before_any_worker_is_there(
        self, generate: GenerateTask, shared_worker: StartWorker, terminate: bool
    ) -> None:
        """A worker that starts later heard no broadcast, and runs nothing that was cancelled."""
        queue, model = ("tier-3-7B", "fake:10@3-7B") if terminate else ("tier-7-13B", "fake:10@7-13B")
        early = generate.delay(prompt="early", model=model, max_tokens=5000)
        early.revoke(terminate=terminate)
        after = generate.delay(prompt="after", model=model, max_tokens=2)
        shared_worker("-c", "1", "-Q", queue)
        (chunk,) = read(early)
        assert (chunk.text, chunk.finish_reason) == ("", "cancelled")
        with pytest.raises(TaskRevokedError):
            early.get(timeout=WAIT_S)
        assert after.get(timeout=WAIT_S)["text"] == fake_text("after", None, 2)

    def test_waiting_for_its_time(self, generate: GenerateTask) -> None:
        """A request with a countdown that is cancelled meanwhile never runs."""
        later = generate.apply_async(kwargs={"prompt": "later", **LONG}, countdown=5)
        later.revoke(terminate=True)
        assert [chunk.finish_reason for chunk in read(later)] == ["cancelled"]
        with pytest.raises(TaskRevokedError):
            later.get(timeout=WAIT_S)

    def test_a_reader_that_leaves(self, generate: GenerateTask) -> None:
        """With ``cancel_on_close`` the slot is free as soon as the reader is gone."""
        result = generate.delay(prompt="left", **LONG)
        with closing(result.stream(timeout=WAIT_S, cancel_on_close=True)) as chunks:
            next(chunks)
        with pytest.raises(TaskRevokedError):
            result.get(timeout=WAIT_S)

    def test_twice(self, running: GenerateResult) -> None:
        """Cancelling again, also after the end, does no harm."""
        for _ in range(2):
            running.revoke(terminate=True)
        assert read(running)[-1].finish_reason == "cancelled"
        running.revoke(terminate=True)
        assert read(running)[-1].finish_reason == "cancelled"


@pytest.fixture(scope="class")
def wide(shared_worker: StartWorker) -> Worker:
    """A worker of another tier, with two slots: it hears of every revoke too."""
    return shared_worker("-c", "2", "-Q", "tier-13-27B", env={"CELERY_MLX_MODELS": WIDE})


def revoke_heard(app: Celery, result: GenerateResult, *workers: Worker) -> None:
    """Celery's broadcast without ``terminate``; returns once all of these workers have answered it."""
    nodes = {worker.node for worker in workers}
    answers = app.control.revoke([result.id], destination=[*nodes], reply=True, timeout=WAIT_S)
    assert {name for answer in answers for name in answer} == nodes


class TestSeveralWorkers:
    """Every worker hears a revoke, and one of them, or none, runs it: result and stream say the same."""

    @pytest.mark.parametrize("ways", ["result", "list"])
    def test_running_elsewhere(
        self, generate: GenerateTask, node: Worker, wide: Worker, shared_app: Celery, ways: str
    ) -> None:
        """Without ``terminate`` what runs on another worker goes on, and nobody says meanwhile that it was revoked."""
        result = generate.delay(prompt="goes on", model=MODEL, max_tokens=300)
        stream = result.stream(timeout=WAIT_S)
        next(stream)
        if ways == "result":
            result.revoke()
        revoke_heard(shared_app, result, node, wide)
        assert result.state in {"STARTED", "SUCCESS"}
        assert [*stream][-1].finish_reason == "length"
        assert result.get(timeout=WAIT_S)["text"] == fake_text("goes on", None, 300)

    def test_queued(
        self, running: GenerateResult, generate: GenerateTask, node: Worker, wide: Worker, shared_app: Celery
    ) -> None:
        """What waits has ended when the workers have answered, in its journal as in its result, though no slot is free."""
        queued = generate.delay(prompt="queued", **LONG)
        revoke_heard(shared_app, queued, node, wide)
        assert queued.state == "REVOKED"
        assert [chunk.finish_reason for chunk in read(queued)] == ["cancelled"]
        assert not running.ready()

    def test_a_second_delivery(
        self, generate: GenerateTask, wide: Worker, shared_redis: redis.Redis, shared_app: Celery
    ) -> None:
        """The second delivery of a request that runs is dropped without a word: the first one says how it ends."""
        record = wide.record()
        assert record is not None
        result = generate.delay(prompt="twice", model=WIDE, max_tokens=1000)
        stream = result.stream(timeout=WAIT_S)
        next(stream)
        revoke_heard(shared_app, result, wide)
        (message,) = shared_redis.hvals(keys.unacked(record.identity))
        raw, _, queue = json.loads(message)
        shared_redis.rpush(queue, json.dumps(raw))
        wait_until(lambda: f"Discarding revoked task: tasks.generate[{result.id}]" in wide.log())
        assert result.state in {"STARTED", "SUCCESS"}
        assert [*stream][-1].finish_reason == "length"
        assert result.get(timeout=WAIT_S)["text"] == fake_text("twice", None, 1000)
        wait_until(lambda: not shared_redis.exists(keys.unacked(record.identity)))


def entries(client: redis.Redis, result: GenerateResult) -> list[str]:
    """The types of the entries in a request's journal; a ``start`` stands before any prefill."""
    stored: Any = client.xrange(keys.stream(result.id))
    return [json.loads(fields["d"])["type"] for _, fields in stored]


class TestTime:
    def test_soft_limit(self, generate: GenerateTask) -> None:
        """After its soft limit a request ends as an answer with what there is, and says why."""
        result = generate.apply_async(kwargs={"prompt": "soft", **LONG}, soft_time_limit=5)
        chunks = read(result)
        answer = result.get(timeout=WAIT_S)
        assert chunks[-1].finish_reason == answer["finish_reason"] == "deadline"
        assert text_of(chunks) == answer["text"]
        assert 0 < answer["usage"]["completion_tokens"] < 5000
        assert answer["text"] == fake_text("soft", None, answer["usage"]["completion_tokens"])

    def test_deadline(self, generate: GenerateTask) -> None:
        """A deadline in the request does the same, by the clock; one that has passed answers nothing."""
        answer = generate.delay(prompt="until", deadline=time.time() + 5, **LONG).get(timeout=WAIT_S)
        assert answer["finish_reason"] == "deadline"
        assert answer["text"]

    def test_deadline_that_has_passed(self, generate: GenerateTask, shared_redis: redis.Redis) -> None:
        """A request that comes after its deadline is not prefilled: its journal has a claim and an end."""
        late = generate.delay(prompt="late", deadline=time.time() - 60, **LONG)
        answer = late.get(timeout=WAIT_S)
        assert (answer["finish_reason"], answer["text"], answer["usage"]["completion_tokens"]) == ("deadline", "", 0)
        assert [chunk.finish_reason for chunk in read(late)] == ["deadline"]
        assert entries(shared_redis, late) == ["claim", "end"]

    def test_deadline_while_its_model_loads(self, generate: GenerateTask, shared_redis: redis.Redis) -> None:
        """A request whose deadline passes while its model is loaded does not wait for it."""
        late = generate.delay(prompt="late", model="fake:5:load_s=40", deadline=time.time() + 0.5)
        assert late.get(timeout=35)["finish_reason"] == "deadline"
        assert entries(shared_redis, late) == ["claim", "end"]

    def test_deadline_before_any_first_token(self, generate: GenerateTask, shared_redis: redis.Redis) -> None:
        """A deadline that is nearer than the first token of any of the last requests is not tried."""
        model = "fake:1500"
        for number in range(4):
            assert generate.delay(prompt=f"p{number}", model=model, max_tokens=1).get(timeout=WAIT_S)["text"]
        late = generate.delay(prompt="late", model=model, deadline=time.time() + 0.7)
        assert late.get(timeout=WAIT_S)["finish_reason"] == "deadline"
        assert entries(shared_redis, late) == ["claim", "end"]
        met = generate.delay(prompt="met", model=model, max_tokens=1, deadline=time.time() + 60)
        assert met.get(timeout=WAIT_S)["finish_reason"] == "length"

    def test_hard_limit(self, generate: GenerateTask, node: Worker) -> None:
        """After its hard limit a request is a failure, as Celery's are, and its stream ends with an error after its text."""
        result = generate.apply_async(kwargs={"prompt": "hard", **LONG}, time_limit=1)
        chunks: list[Chunk] = []
        with pytest.raises(DeadlineExceeded, match="the time limit of 1 s passed"):
            chunks.extend(result.stream(timeout=WAIT_S))
        with pytest.raises(TimeLimitExceeded):
            result.get(timeout=WAIT_S)
        assert result.state == "FAILURE"
        assert "Traceback" not in node.log()

    def test_expired(self, running: GenerateResult, generate: GenerateTask, shared_redis: redis.Redis) -> None:
        """A request that waited for longer than it wanted is not run, and its stream says so."""
        queued = generate.apply_async(kwargs={"prompt": "stale", **LONG}, expires=0.2)
        time.sleep(0.5)
        running.revoke(terminate=True)
        wait_until(lambda: not shared_redis.hexists(keys.LEDGER, queued.id))
        with pytest.raises(Expired, match="longer than its expires"):
            read(queued)
        with pytest.raises(TaskRevokedError):
            queued.get(timeout=WAIT_S)

    def test_not_expired(self, generate: GenerateTask) -> None:
        """A request that is in time is run, however long that takes then."""
        result = generate.apply_async(kwargs={"prompt": "fresh", "model": MODEL, "max_tokens": 600}, expires=5)
        assert result.get(timeout=WAIT_S)["text"] == fake_text("fresh", None, 600)

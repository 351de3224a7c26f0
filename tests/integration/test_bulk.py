"""Bulk jobs on a real worker: exact, resumable, and nothing left behind."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from tasks.broker.queues.limits import QueueLimit, write_limits
from tasks.bulk.job import Job, Options
from tasks.bulk.line import Line
from tasks.bulk.record import Records
from tasks.bulk.requests import Requests
from tasks.bulk.window import LEAST
from tasks.errors import BrokerUnavailable, EngineFailed, Expired, InvalidRequest
from tasks.server import keys
from tests.support import ROOT, left_of_bulk, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import redis
    from celery import Celery

    from tasks.generate import GenerateTask
    from tests.conftest import StartWorker
    from tests.support import Worker

pytestmark = pytest.mark.xdist_group("bulk")

MODEL = "fake:1"
QUEUE = "tier-under-3B"


@pytest.fixture(scope="module")
def generate(shared_app: Celery) -> GenerateTask:
    from tasks import generate

    assert generate.app is shared_app
    return generate


@pytest.fixture(scope="module")
def node(shared_worker: StartWorker, tmp_path_factory: pytest.TempPathFactory) -> Worker:
    schedule = str(tmp_path_factory.mktemp("beat") / "schedule")
    return shared_worker("-c", "8", "-B", "-s", schedule, env={"CELERY_MLX_MODELS": MODEL})


def batch(folder: Path, count: int, **body: Any) -> Path:
    """An input in OpenAI's shape."""
    path = folder / "input.jsonl"
    with path.open("w") as file:
        for n in range(count):
            messages = [{"role": "user", "content": f"line {n}"}]
            given = {"model": MODEL, "messages": messages, "max_tokens": 3, **body}
            line = {"custom_id": f"c{n}", "method": "POST", "url": "/v1/chat/completions", "body": given}
            file.write(json.dumps(line) + "\n")
    return path


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_of_other_tasks(generate: GenerateTask, node: Worker, tmp_path: Path) -> None:
    """Vectors and rankings beside answers come back in the gateway's shape; lines whose models do other work fail alone."""
    assert node
    source, target = batch(tmp_path, 2), tmp_path / "output.jsonl"
    inputs: dict[str, Any] = {"input": ["one", "two"]}
    pairs: dict[str, Any] = {"query": "two cats", "documents": ["a dog", "two dogs", "two cats"], "top_n": 2}
    with source.open("a") as file:
        for name, url, body in (
            ("vectors", "/v1/embeddings", {"model": "fake:1:dimensions=3", **inputs}),
            ("wrong", "/v1/embeddings", {"model": MODEL, **inputs}),
            ("ranking", "/v1/rerank", {"model": "fake:1:ranks=1", **pairs}),
            ("no ranking", "/v1/rerank", {"model": "fake:1:dimensions=3", **pairs}),
        ):
            file.write(json.dumps({"custom_id": name, "method": "POST", "url": url, "body": body}) + "\n")
    with Job(generate.app, source, target) as job:
        list(job)
    found = {record["custom_id"]: record["response"] for record in records(target)}
    assert set(found) == {"c0", "c1", "vectors", "wrong", "ranking", "no ranking"}
    assert [len(item["embedding"]) for item in found["vectors"]["body"]["data"]] == [3, 3]
    assert set(found["vectors"]["body"]) == {"object", "data", "model", "usage"}
    assert "use generate" in found["wrong"]["body"]["error"]["message"]
    ranking = found["ranking"]["body"]
    assert set(ranking) == {"id", "model", "results", "usage"}
    assert ranking["results"] == [{"index": 2, "relevance_score": 1.0}, {"index": 1, "relevance_score": 0.5}]
    assert ranking["usage"] == {"prompt_tokens": 12, "total_tokens": 12}
    assert "ranks nothing" in found["no ranking"]["body"]["error"]["message"]


def test_a_batch_file(generate: GenerateTask, node: Worker, shared_redis: redis.Redis, tmp_path: Path) -> None:
    """Each custom_id comes back once, with a chat completion; neither result nor journal stays, and the job says so."""
    source, target = batch(tmp_path, 100), tmp_path / "output.jsonl"
    job = Job(generate.app, source, target)
    with job:
        finished = list(job)
    assert sorted(record["custom_id"] for record in records(target)) == sorted(f"c{n}" for n in range(100))
    assert all(record["response"]["body"]["usage"]["completion_tokens"] == 3 for record in records(target))
    assert len(finished) == 100
    assert left_of_bulk(shared_redis) == []
    record = Records(shared_redis).read(job.job_id)
    assert record is not None
    assert (record.state, record.total, record.done, record.completion_tokens) == ("completed", 100, 100, 300)
    # The same call again has nothing to do.
    assert list(generate.bulk(source, target)) == []
    assert len(records(target)) == 100


def test_redis_that_leaves_within_a_look(
    generate: GenerateTask, node: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a look had found already is written, whatever fails behind it."""
    assert node
    source, target = batch(tmp_path, 2), tmp_path / "output.jsonl"
    source.write_text('{"custom_id": "odd", "body": {"top_p": 7}}\n' + source.read_text())
    job = Job(generate.app, source, target)
    away = iter([BrokerUnavailable("Redis cannot be reached")])
    asked = job._requests.unknown

    def unknown(task_ids: Iterable[str]) -> set[str]:
        for error in away:
            raise error
        return asked(task_ids)

    monkeypatch.setattr(job._requests, "unknown", unknown)
    with job:
        list(job)
    assert {record["custom_id"] for record in records(target)} == {"odd", "c0", "c1"}


def test_an_iterable(generate: GenerateTask, node: Worker, shared_redis: redis.Redis) -> None:
    """Prompts and parameters in, answers with their ids out; a line that is wrong fails alone."""
    given = ["a", {"id": "mine", "prompt": "b"}, {"prompt": "c", "top_p": 7}, {"prompt": "!fail"}]
    found = {line.id: line for line in generate.bulk(given, model=MODEL, max_tokens=2)}
    assert found.keys() == {"1", "mine", "3", "4"}
    assert found["1"].text
    assert found["mine"].answer is not None
    assert found["mine"].answer["usage"]["completion_tokens"] == 2
    assert isinstance(found["3"].error, InvalidRequest)
    assert "asked the fake engine to fail" in str(found["4"].error)
    assert left_of_bulk(shared_redis) == []


def test_asyncio(generate: GenerateTask, node: Worker) -> None:
    """``abulk`` leaves the event loop free."""
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0.001)

    async def run() -> list[str | None]:
        beside = asyncio.create_task(turn())
        found = [line.id async for line in generate.abulk([f"p{n}" for n in range(20)], model=MODEL, max_tokens=20)]
        beside.cancel()
        return found

    assert sorted(map(str, asyncio.run(run())), key=int) == [str(n) for n in range(1, 21)]
    assert turns > 10


def test_poison(generate: GenerateTask, node: Worker, tmp_path: Path) -> None:
    """Bad lines are answered in OpenAI's shape, and the others are not disturbed; a line that kills engines is given up."""
    source, target = batch(tmp_path, 3), tmp_path / "output.jsonl"
    with source.open("ab") as file:
        file.write(b"{\n\xff\n")
        for line_id, body in (
            ("unknown", {"model": "nobody/has-it", "prompt": "x"}),
            ("other", {"model": "fake:2", "prompt": "x", "max_tokens": 1}),
            ("killer", {"model": "fake:3", "prompt": "!crash@1", "max_tokens": 3}),
        ):
            line = {"custom_id": line_id, "method": "POST", "url": "/v1/completions", "body": body}
            file.write(json.dumps(line).encode() + b"\n")
    list(generate.bulk(source, target, options=Options(tries=1)))
    found = {
        record["custom_id"]: record["response"]["status_code"] for record in records(target) if record["custom_id"]
    }
    assert found == {"c0": 200, "c1": 200, "c2": 200, "unknown": 404, "other": 200, "killer": EngineFailed.http_status}
    nameless = [record["response"]["body"]["error"] for record in records(target) if record["custom_id"] is None]
    assert sorted(error["message"][:7] for error in nameless) == ["line 4:", "line 5:"]
    assert {error["code"] for error in nameless} == {"invalid_request"}


def test_killed_and_started_again(
    generate: GenerateTask, node: Worker, shared_redis: redis.Redis, tmp_path: Path
) -> None:
    """A driver that is killed at any time goes on: each id once, and what was written is computed once."""
    count = 200
    source, target = batch(tmp_path, count, max_tokens=2), tmp_path / "output.jsonl"
    program = f"from tasks import generate\nfor line in generate.bulk({str(source)!r}, {str(target)!r}): pass"
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT) as driver:
        wait_until(lambda: target.exists() and target.read_bytes().count(b"\n") >= 50, timeout_s=60)
        driver.kill()
    with target.open("ab") as file:
        file.write(b'{"id":"batch_req_bulk')
    written = target.read_bytes().splitlines()[:-1]
    # A worker writes a journal again that Redis seems to have lost.
    again = keys.stream(json.loads(written[0])["response"]["request_id"])
    shared_redis.xadd(again, {"d": "{}"})
    list(generate.bulk(source, target))
    assert target.read_bytes().splitlines()[: len(written)] == written
    assert sorted(record["custom_id"] for record in records(target)) == sorted(f"c{n}" for n in range(count))
    assert left_of_bulk(shared_redis) == []


def test_two_outputs_of_one_input(generate: GenerateTask, node: Worker, tmp_path: Path) -> None:
    """They are two jobs: neither takes back, deletes or waits for a request of the other."""
    assert node
    source, targets = batch(tmp_path, 40), [tmp_path / "one.jsonl", tmp_path / "other.jsonl"]
    first, second = (Job(generate.app, source, target, options=Options(tries=1)) for target in targets)
    with first:
        for job in (first, second):
            job._window.look()
            job._ahead.read()
        first._send(QUEUE)
        with second:
            second._send(QUEUE)
        list(first)
    list(generate.bulk(source, targets[1]))
    for target in targets:
        assert sorted(record["custom_id"] for record in records(target)) == sorted(f"c{n}" for n in range(40))
        assert {record["response"]["status_code"] for record in records(target)} == {200}
    moved = targets[0].rename(tmp_path / "moved.jsonl")
    assert list(generate.bulk(source, moved)) == []


def test_tokens_that_nobody_reads(generate: GenerateTask, node: Worker, shared_redis: redis.Redis) -> None:
    """A journal of batch work has few entries; a reader has its tokens as they come."""
    assert node
    values = {"prompt": "a", "model": MODEL, "max_tokens": 400}
    unread = generate.apply_async(kwargs=values, priority=9)
    text = unread.get(timeout=60)["text"]
    entries: Any = shared_redis.xlen(keys.stream(unread.id))
    assert entries < 100
    read = generate.apply_async(kwargs={**values, "model": "fake:20", "max_tokens": 300}, priority=9)
    chunks = [chunk.text for chunk in read.stream()]
    assert text.startswith("".join(chunks))
    assert len(chunks) > 10


def test_connected_again(generate: GenerateTask, node: Worker, shared_redis: redis.Redis) -> None:
    """A worker that looks for what Redis may have lost does not write again what the job has deleted."""
    assert len(list(generate.bulk([f"p{n}" for n in range(20)], model=MODEL, max_tokens=2))) == 20
    # Those of earlier tests may pass at any moment (-2); none is there for ever (-1).
    assert all(shared_redis.ttl(key) in {-2, *range(61)} for key in shared_redis.keys(keys.collected("*")))
    shared_redis.client_kill_filter(_type="normal", skipme=True)
    # It looks before it fetches.
    assert len(list(generate.bulk(["again"], model=MODEL, max_tokens=2))) == 1
    assert left_of_bulk(shared_redis) == []


def test_lost_by_redis(generate: GenerateTask, node: Worker, shared_redis: redis.Redis) -> None:
    """Requests that Redis has lost are sent again."""
    lines = generate.bulk([f"p{n}" for n in range(40)], model="fake:20", max_tokens=20)
    found = [next(lines).id]
    shared_redis.delete(QUEUE, f"{QUEUE}\x06\x169", keys.LEDGER)
    found += [line.id for line in lines]
    assert sorted(map(str, found), key=int) == [str(n) for n in range(1, 41)]


def test_a_journal_that_nobody_goes_on_with(
    generate: GenerateTask, node: Worker, shared_redis: redis.Redis, tmp_path: Path
) -> None:
    """A driver that was started again sends a line whose request has a journal, and is in no queue and with no worker."""
    assert node
    source, target = batch(tmp_path, 2), tmp_path / "output.jsonl"
    with Job(generate.app, source, target):
        pass
    job = Job(generate.app, source, target)
    job._doubts._look_every_s = 0.1
    shared_redis.xadd(keys.stream(f"bulk-{job.job_id}-1"), {"d": "{}"}, id="1-0")
    with job:
        list(job)
    assert {record["custom_id"] for record in records(target)} == {"c0", "c1"}


class TestWithoutWorker:
    """What is in Redis while nobody works."""

    @pytest.fixture
    def queue(self, generate: GenerateTask, shared_redis: redis.Redis) -> str:
        """The list of a queue that has no worker."""
        for key in shared_redis.keys("tier-3-7B*"):
            shared_redis.delete(key)
        return "tier-3-7B\x06\x169"

    def test_the_window(self, generate: GenerateTask, shared_redis: redis.Redis, queue: str, tmp_path: Path) -> None:
        """No more requests are sent than the window holds; a deadline ends every line, and takes them back."""
        source, target = batch(tmp_path, 50, model="fake:1@3-7B"), tmp_path / "output.jsonl"
        job = Job(generate.app, source, target, options=Options(deadline_s=1.0))
        with job:
            lines = iter(job)
            found = [next(lines)]
            assert isinstance(found[0].error, Expired)
            found += lines
        assert {record["error"]["code"] for record in records(target)} == {"batch_expired"}
        assert len(found) == 50
        assert not shared_redis.llen(queue)
        assert not shared_redis.hlen(keys.LEDGER)

    def test_a_deadline_that_is_continued(
        self, generate: GenerateTask, shared_redis: redis.Redis, queue: str, tmp_path: Path
    ) -> None:
        """A job that goes on has the time that it had; a longer one counts from its first start."""
        assert queue
        source, target = batch(tmp_path, 2, model="fake:1@3-7B"), tmp_path / "output.jsonl"

        def deadline_of(deadline_s: float | None) -> float:
            job = Job(generate.app, source, target, options=Options(deadline_s=deadline_s))
            with job:
                return job.record.deadline - job.record.started_at

        assert deadline_of(600.0) == pytest.approx(600.0)
        job = Job(generate.app, source, target)
        target.write_text(f'{{"id":"batch_req_bulk-{job.job_id}-1","response":{{"status_code":200}}}}\n')
        assert [deadline_of(given) for given in (None, 300.0, 900.0)] == pytest.approx([600.0, 600.0, 900.0])
        shared_redis.hset(keys.bulk(job.job_id), mapping={"started_at": "100.0", "deadline": "150.0"})
        list(generate.bulk(source, target))
        assert "give it more time than 50 s" in records(target)[1]["error"]["message"]

    def test_asyncio_that_is_cancelled(self, generate: GenerateTask, shared_redis: redis.Redis, queue: str) -> None:
        """It returns at once, and takes back what was sent."""

        async def run() -> None:
            async for _ in generate.abulk(["a", "b"], model="fake:1@3-7B"):
                pass

        async def leave() -> None:
            reader = asyncio.create_task(run())
            await asyncio.to_thread(wait_until, lambda: shared_redis.llen(queue))
            reader.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reader

        asyncio.run(leave())
        wait_until(lambda: not shared_redis.llen(queue))

    def test_a_full_queue(self, generate: GenerateTask, shared_redis: redis.Redis, queue: str) -> None:
        """Others keep half of what a queue takes; a job that is left takes its requests back."""
        write_limits(shared_redis, {"tier-3-7B": QueueLimit(bound=8, per_s=1.0)})
        job = Job(generate.app, [f"p{n}" for n in range(50)], defaults={"model": "fake:1@3-7B"})
        with job:
            job._step([])
            assert shared_redis.llen(queue) == job.in_flight == 4
        assert not shared_redis.llen(queue)
        shared_redis.delete(keys.LIMITS)

    def test_cancel(self, generate: GenerateTask, shared_redis: redis.Redis, queue: str, tmp_path: Path) -> None:
        """A driver that is told to stop does so, and the same job can go on."""
        source, target = batch(tmp_path, 50, model="fake:1@3-7B"), tmp_path / "output.jsonl"
        job = Job(generate.app, source, target)
        with job:
            job._step([])
            assert shared_redis.llen(queue) == LEAST
            Records(shared_redis).cancel(job.job_id)
            assert list(job) == []
        record = Records(shared_redis).read(job.job_id)
        assert record is not None
        assert record.state == "cancelled"
        assert not shared_redis.llen(queue)
        assert Job(generate.app, source, target).job_id == job.job_id


def test_round_trips(generate: GenerateTask, shared_redis: redis.Redis) -> None:
    """Many requests go out in far fewer round trips."""
    write_limits(shared_redis, {"tier-3-7B": QueueLimit(bound=100_000, per_s=1.0)})
    requests = Requests(generate.app, 9)
    ids = [f"bulk-trips-{n}" for n in range(200)]
    line = Line(1, "1", "plain", {"prompt": "x", "model": "fake:1@3-7B"})
    begun_at, before = time.monotonic(), reads(shared_redis)
    assert requests.send(dict.fromkeys(ids, ("tier-3-7B", line))) == set()
    others = 20 * (time.monotonic() - begun_at)  # what a worker and its sweep send meanwhile
    assert reads(shared_redis) - before < 100 + others
    assert shared_redis.llen("tier-3-7B\x06\x169") == 200
    requests.withdraw(ids)
    requests.close()
    assert left_of_bulk(shared_redis) == []


def reads(client: redis.Redis) -> int:
    """How often the server was sent something so far."""
    info: Any = client.info("stats")
    return int(info["total_reads_processed"])


def test_another_input(generate: GenerateTask, tmp_path: Path) -> None:
    """An output with the answers of another input is refused with the remedy, and left as it is."""
    source, target = batch(tmp_path, 1), tmp_path / "output.jsonl"
    target.write_text('{"id":"1","task_id":"bulk-0123456789ffffff-1"}\n')
    with pytest.raises(InvalidRequest, match=r"answers of another input.*choose another output, or remove this one"):
        list(generate.bulk(source, target))
    assert target.read_text().count("\n") == 1

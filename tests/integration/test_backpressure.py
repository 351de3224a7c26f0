"""A queue's bound, who is exempt from it, and where a request stands in it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from celery import chain, chord, group

from tasks.broker.queues.limits import QueueLimit, limits_of, write_limits
from tasks.broker.submission.pages import MOST_BYTES
from tasks.errors import InvalidRequest, QueueFull
from tasks.messages.registry import WorkerRecord
from tasks.server import keys
from tests.support import wait_until
from worker_config.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import redis

    from tasks.client.result import GenerateResult
    from tasks.generate import GenerateTask
    from tests.conftest import StartWorker

QUEUE = "tier-under-3B"


def send(generate: GenerateTask, **options: Any) -> GenerateResult:
    """One small request."""
    return generate.apply_async(kwargs={"prompt": "a", "model": "fake:1", "max_tokens": 1}, **options)


class TestQueueFull:
    """``delay`` refuses what would wait for too long."""

    def test_refused_with_the_numbers(self, generate: GenerateTask, redis_client: redis.Redis) -> None:
        """Over the bound ``delay`` itself raises, with depth, bound and a hint from the measured throughput."""
        write_limits(redis_client, {QUEUE: QueueLimit(bound=2, per_s=0.5)})
        send(generate)
        send(generate, priority=9)
        with pytest.raises(
            QueueFull, match=r"2 requests wait in tier-under-3B, the bound is 2: try again in 2 s"
        ) as caught:
            send(generate)
        assert (caught.value.depth, caught.value.bound, caught.value.retry_after_s) == (2, 2, 2.0)
        assert redis_client.llen(QUEUE) == 1
        assert redis_client.hlen(keys.LEDGER) == 2

    def test_floor_without_a_sweep(self, generate: GenerateTask, redis_client: redis.Redis) -> None:
        """Where nobody has written limits, the floor of the settings is the bound, and nothing is promised."""
        redis_client.lpush(QUEUE, *["{}"] * Settings().queue_floor)
        with pytest.raises(QueueFull, match="start more workers, or try again later") as caught:
            send(generate)
        assert caught.value.bound == Settings().queue_floor
        assert caught.value.retry_after_s is None

    def test_a_chain_goes_on(self, generate: GenerateTask, redis_client: redis.Redis, worker: StartWorker) -> None:
        """The next link of a chain, which a worker sends, is taken although the queue is full."""
        worker("-c", "1")
        link = generate.s(model="fake:1", max_tokens=1)
        chain = (generate.s(prompt="a", model="fake:1", max_tokens=1) | link).apply_async()
        write_limits(redis_client, {QUEUE: QueueLimit(bound=1, per_s=0.0)})
        assert chain.get(timeout=60)["finish_reason"] == "length"

    def test_limits_follow_the_slots(self) -> None:
        """So many requests for each live slot, never fewer than the floor; a draining worker does not count.

        A queue's throughput is that of its own requests.
        """
        settings = Settings(queue_per_slot=10, queue_floor=25)
        served = {"requests_per_s": 9.0, "queues": {QUEUE: {"requests_per_s": 1.5}}}
        up = WorkerRecord(node="a", boot="1", status="online", slots={QUEUE: 6, "tier-3-7B": 2}, metrics=served)
        leaving = WorkerRecord(node="b", boot="1", status="draining", slots={QUEUE: 90})
        limits = limits_of([up, leaving], settings)
        assert limits[QUEUE] == QueueLimit(60, 1.5)
        assert limits["tier-3-7B"] == QueueLimit(25, 0.0)

    @pytest.mark.parametrize("queues", [None, 5, [], {QUEUE: None}, {QUEUE: {}}, {QUEUE: {"requests_per_s": "x"}}])
    def test_a_record_that_says_nothing_of_its_queues(self, queues: object) -> None:
        """A worker of an older version, or one that writes something else, adds no throughput."""
        record = WorkerRecord(node="a", boot="1", status="online", slots={QUEUE: 6}, metrics={"queues": queues})
        assert limits_of([record], Settings())[QUEUE].per_s == 0.0


def members(generate: GenerateTask, count: int) -> list[Any]:
    """Signatures of small requests."""
    return [generate.s(prompt=f"m{n}", model="fake:1", max_tokens=1) for n in range(count)]


class TestGroups:
    """A group that cannot be sent as a whole is not sent."""

    @pytest.mark.parametrize(
        "make",
        [
            pytest.param(lambda m: group(*m), id="group"),
            pytest.param(lambda m: group(group(*m[:2]), group(*m[2:])), id="groups in a group"),
            pytest.param(lambda m: chord(m[:4], m[4]), id="a chord's header"),
            pytest.param(lambda m: group(chord(m[:2], m[4]), chord(m[2:4], m[4])), id="chords in a group"),
            pytest.param(lambda m: chord([chord(m[:2], m[4]), m[2], m[3]], m[4]), id="a chord in a chord"),
            pytest.param(lambda m: group(chain(m[0], m[4]), chain(m[1], m[4]), m[2], m[3]), id="chains in a group"),
            pytest.param(lambda m: chain(group(*m[:4]), m[4]), id="a chain that begins with a group"),
            pytest.param(
                lambda m: group(chain(group(*m[:2]), m[4]), chain(group(*m[2:4]), m[4])), id="groups in chains"
            ),
        ],
    )
    def test_a_full_queue_half_way(
        self, generate: GenerateTask, redis_client: redis.Redis, make: Callable[[list[Any]], Any]
    ) -> None:
        """What was sent of it is taken back, in every form of the canvas; what others have sent stays."""
        write_limits(redis_client, {QUEUE: QueueLimit(bound=4, per_s=0.5)})
        other = send(generate)
        canvas = make(members(generate, 5))
        with pytest.raises(
            QueueFull, match=r"4 requests wait in tier-under-3B, the bound is 4: .*3 of its group before"
        ) as caught:
            canvas.apply_async()
        assert (caught.value.depth, caught.value.bound) == (4, 4)
        assert redis_client.llen(QUEUE) == 1
        assert redis_client.hkeys(keys.LEDGER) == [other.id]
        assert redis_client.keys(keys.request("*")) == [keys.request(other.id)]
        write_limits(redis_client, {QUEUE: QueueLimit(bound=6, per_s=0.5)})
        canvas.apply_async()
        assert redis_client.llen(QUEUE) in (
            5,
            6,
        )  # the other, and four or five: in some of them the last one follows the others

    def test_with_ids_of_one_s_own(self, generate: GenerateTask, redis_client: redis.Redis) -> None:
        """A request that was taken back has never been: its id can be sent again, and is answered."""
        write_limits(redis_client, {QUEUE: QueueLimit(bound=1, per_s=0.5)})
        canvas = group(member.set(task_id=f"id-{n}") for n, member in enumerate(members(generate, 2)))
        with pytest.raises(QueueFull):
            canvas.apply_async()
        assert not list(redis_client.scan_iter(f"{keys.PREFIX}*id-*"))
        assert send(generate, task_id="id-0").id == "id-0"
        assert redis_client.llen(QUEUE) == 1

    def test_two_after_one_another(self, generate: GenerateTask, redis_client: redis.Redis) -> None:
        """A group that was sent stays when the next one cannot be."""
        write_limits(redis_client, {QUEUE: QueueLimit(bound=3, per_s=0.5)})
        first = group(members(generate, 2)).apply_async()
        with pytest.raises(QueueFull):
            group(members(generate, 2)).apply_async()
        assert sorted(redis_client.hkeys(keys.LEDGER)) == sorted(result.id for result in first.results)

    def test_a_member_that_is_wrong(self, generate: GenerateTask, redis_client: redis.Redis) -> None:
        """Because of a member that is refused for itself none is sent."""
        with pytest.raises(InvalidRequest, match=r"top_p=5: .*; nothing of its group was sent"):
            group(*members(generate, 2), generate.s(prompt="x", model="fake:1", top_p=5)).apply_async()
        assert not redis_client.llen(QUEUE)
        assert not redis_client.hlen(keys.LEDGER)

    def test_scheduled_ones(self, generate: GenerateTask, redis_client: redis.Redis) -> None:
        """Members that wait for their time are taken back as well."""
        write_limits(redis_client, {QUEUE: QueueLimit(bound=2, per_s=0.5)})
        with pytest.raises(QueueFull, match="2 requests are scheduled for"):
            group(members(generate, 3)).apply_async(countdown=60)
        assert not redis_client.zcard(keys.scheduled(QUEUE))
        assert not redis_client.hlen(keys.LEDGER)

    def test_one_that_runs(self, generate: GenerateTask, worker: StartWorker) -> None:
        """A member that a worker has begun is cancelled."""
        node = worker("-c", "2", env={"CELERY_MLX_HEARTBEAT_S": "0.2"})
        runs = generate.AsyncResult("runs")

        def drawn() -> Iterator[Any]:
            # So long that it is not kept to be sent together with others.
            yield generate.s(prompt="x" * MOST_BYTES, model="fake:20", max_tokens=5000).set(task_id=runs.id)
            yield generate.s(prompt="short", model="fake:20", max_tokens=1)
            next(iter(runs.stream(timeout=60)))  # Celery draws one more than it sends
            yield generate.s(prompt="x", model="fake:1", top_p=5)

        with pytest.raises(InvalidRequest):
            group(drawn()).apply_async()
        assert list(runs.stream(timeout=60))[-1].finish_reason == "cancelled"
        wait_until(lambda: (record := node.record()) is not None and not sum(record.busy.values()))


class TestPosition:
    """``result.position()`` says how many are ahead."""

    def test_counts_what_is_taken_first(self, generate: GenerateTask, redis_client: redis.Redis) -> None:
        """Ahead are the older ones of the same priority and all that are more urgent."""
        write_limits(redis_client, {QUEUE: QueueLimit(bound=100, per_s=2.0)})
        first, second = send(generate, priority=5), send(generate, priority=5)
        urgent = send(generate)
        stands = [result.position() for result in (urgent, first, second)]
        assert [position.ahead for position in stands if position] == [0, 1, 2]
        assert [position.wait_s for position in stands if position] == [0.5, 1.0, 1.5]

    def test_none_once_it_runs(self, generate: GenerateTask, worker: StartWorker) -> None:
        """A request that was taken waits in no queue any more."""
        worker("-c", "1")
        result = send(generate)
        assert result.get(timeout=60)["text"]
        assert result.position() is None

    def test_garbage_in_the_ledger(self, generate: GenerateTask, redis_client: redis.Redis) -> None:
        """An entry that is not ours gives no position and no error."""
        result = generate.AsyncResult("nobody")
        for entry in (
            "",
            "[]",
            "{",
            json.dumps({"queue": 1, "message": "m"}),
            json.dumps({"queue": "q", "message": "m"}),
        ):
            redis_client.hset(keys.LEDGER, "nobody", entry)
            assert result.position() is None


def test_beat_writes_the_limits(worker: StartWorker, redis_client: redis.Redis, tmp_path: Path) -> None:
    """The sweep in beat's process writes each queue's bound from the live workers' slots."""
    worker(
        "-B",
        "-s",
        str(tmp_path / "beat"),
        "-c",
        "2",
        env={"CELERY_MLX_QUEUE_FLOOR": "1", "CELERY_MLX_QUEUE_PER_SLOT": "7"},
    )
    stored = wait_until(
        lambda: json.loads(redis_client.hget(keys.LIMITS, QUEUE) or "{}").get("bound", 0) > 1,
        about="a limit by the sweep",
    )
    assert stored
    bound = json.loads(redis_client.hget(keys.LIMITS, QUEUE) or "{}")["bound"]
    assert bound % 7 == 0

"""A queue's bound, who is exempt from it, and where a request stands in it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tasks.broker.limits import QueueLimit, limits_of, write_limits
from tasks.errors import QueueFull
from tasks.messages.registry import WorkerRecord
from tasks.server import keys
from tests.support import wait_until
from worker_config.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path

    import redis

    from tasks.client.result import GenerateResult
    from tasks.generate import GenerateTask
    from tests.conftest import StartWorker

QUEUE = "tier-under-3B"


def send(generate: GenerateTask, **options: int) -> GenerateResult:
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
        assert chain.get(timeout=20)["finish_reason"] == "length"

    def test_limits_follow_the_slots(self) -> None:
        """So many requests for each live slot, never fewer than the floor; a draining worker does not count."""
        settings = Settings(queue_per_slot=10, queue_floor=25)
        up = WorkerRecord(node="a", boot="1", status="online", slots={QUEUE: 6}, metrics={"requests_per_s": 1.5})
        leaving = WorkerRecord(node="b", boot="1", status="draining", slots={QUEUE: 90})
        limits = limits_of([up, leaving], settings)
        assert limits[QUEUE] == QueueLimit(60, 1.5)
        assert limits["tier-3-7B"] == QueueLimit(25, 0.0)


class TestPosition:
    """``result.position()`` says how many are ahead."""

    def test_counts_what_is_taken_first(self, generate: GenerateTask, redis_client: redis.Redis) -> None:
        """Ahead are the older ones of the same priority and all that are more urgent."""
        write_limits(redis_client, {QUEUE: QueueLimit(bound=100, per_s=2.0)})
        first, second = send(generate, priority=5), send(generate, priority=5)
        urgent = send(generate)
        stands = [result.position() for result in (urgent, first, second)]
        assert [each.ahead for each in stands if each] == [0, 1, 2]
        assert [each.wait_s for each in stands if each] == [0.5, 1.0, 1.5]

    def test_none_once_it_runs(self, generate: GenerateTask, worker: StartWorker) -> None:
        """A request that was taken waits in no queue any more."""
        worker("-c", "1")
        result = send(generate)
        assert result.get(timeout=20)["text"]
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

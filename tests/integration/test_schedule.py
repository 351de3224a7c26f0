"""``countdown`` and ``eta``: requests wait in Redis until they are due, and not in the worker that happens to be idle."""

from __future__ import annotations

import json
import signal
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from celery.exceptions import TaskRevokedError

from tasks.broker.queues.ledger import Ledger
from tasks.broker.queues.limits import QueueLimit, write_limits
from tasks.broker.queues.queues import depths
from tasks.engine.fake import fake_text
from tasks.errors import QueueFull
from tasks.server import keys
from tasks.server.connection import connect
from tests.fleet import waiting_messages
from tests.support import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis
    from celery import Celery

    from tasks.client.result import GenerateResult
    from tasks.generate import GenerateTask
    from tests.conftest import StartWorker

WAIT_S = 60.0
QUEUE = "tier-under-3B"
MODEL = "fake:20"
ARGS = ("-c", "2", "-Q", f"{QUEUE},celery")
ENV = {"CELERY_MLX_MODELS": MODEL, "CELERY_MLX_HEARTBEAT_S": "0.2"}
HOUR = 3600.0


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A client that answers in bytes."""
    with closing(connect(redis_url)) as client:
        yield client


def send(generate: GenerateTask, prompt: str = "p", max_tokens: int = 3, **options: Any) -> GenerateResult:
    return generate.apply_async(kwargs={"prompt": prompt, "model": MODEL, "max_tokens": max_tokens}, **options)


def scheduled(client: redis.Redis) -> int:
    """How many messages of the queue are not due yet."""
    return int(client.zcard(keys.scheduled(QUEUE)))


def held(client: redis.Redis) -> int:
    """How many messages all workers hold."""
    return sum(int(client.hlen(key)) for key in client.scan_iter(keys.unacked("*")))


def claimants(client: redis.Redis, results: list[GenerateResult]) -> list[str]:
    """The workers that claimed these requests."""
    journals: list[Any] = [client.xrange(keys.stream(result.id), count=1) for result in results]
    return [json.loads(entries[0][1][b"d"])["worker"] for entries in journals]


def make_due(client: redis.Redis) -> None:
    """Have the time of all that is scheduled come."""
    items: Any = client.zrange(keys.scheduled(QUEUE), 0, -1)
    client.zadd(keys.scheduled(QUEUE), dict.fromkeys(items, 1.0))


class TestWithoutAWorker:
    def test_it_waits_beside_the_queue(self, generate: GenerateTask, client: redis.Redis) -> None:
        """A request that is not due is in no queue, is seen in the queue's figures, and knows how long it has to wait."""
        result = send(generate, countdown=HOUR, priority=9)
        later = send(generate, eta=datetime.now(UTC) + timedelta(hours=1))
        assert client.llen(QUEUE) == 0
        (depth,) = depths(client, [QUEUE])
        assert (depth.depth, depth.scheduled) == (0, 2)
        for waiting in (result, later):
            position = waiting.position()
            assert position is not None
            assert position.ahead == 0
            assert position.wait_s is not None
            assert HOUR / 2 < position.wait_s <= HOUR

    def test_the_sweep_does_not_miss_it(self, generate: GenerateTask, client: redis.Redis) -> None:
        """A request that is due is not lost while no worker is there to queue it."""
        send(generate, countdown=HOUR)
        make_due(client)
        entry = json.loads(client.hvals(keys.LEDGER)[0])
        client.hset(keys.LEDGER, client.hkeys(keys.LEDGER)[0], json.dumps({**entry, "at": 1.0}))
        now = 0.0
        ledger = Ledger(client, lambda: now)
        assert ledger.lost() == []
        now = 1e6
        assert ledger.lost() == []

    def test_as_many_are_scheduled_as_may_wait(self, generate: GenerateTask, client: redis.Redis) -> None:
        """A schedule has the bound of its queue; it does not fill the queue itself."""
        write_limits(client, {QUEUE: QueueLimit(bound=2, per_s=0.0)})
        for _ in range(2):
            send(generate, countdown=HOUR)
        with pytest.raises(QueueFull, match=f"2 requests are scheduled for {QUEUE}, the bound is 2"):
            send(generate, countdown=HOUR)
        send(generate)

    def test_a_time_that_is_past(self, generate: GenerateTask, client: redis.Redis) -> None:
        """A request whose time has passed is queued at once."""
        send(generate, eta=datetime.now(UTC) - timedelta(hours=1))
        assert (client.llen(QUEUE), scheduled(client)) == (1, 0)


def test_the_fleet_shares_what_comes_due(generate: GenerateTask, worker: StartWorker, client: redis.Redis) -> None:
    """Requests that come due together run on all workers, within their slots; no worker held one before."""
    nodes = [worker(*ARGS, env=ENV) for _ in range(2)]
    results = [send(generate, f"p{n}", 120, countdown=HOUR) for n in range(8)]
    assert scheduled(client) == 8
    assert held(client) == 0
    make_due(client)
    most = dict.fromkeys(nodes, 0)

    def all_have_ended() -> bool:
        for node in nodes:
            record = node.record()
            most[node] = max(most[node], sum(record.busy.values()) if record is not None else 0)
        return all(result.ready() for result in results)

    wait_until(all_have_ended, timeout_s=WAIT_S)
    assert [result.get()["text"] for result in results] == [fake_text(f"p{n}", None, 120) for n in range(8)]
    assert max(most.values()) <= 2
    assert len(set(claimants(client, results))) == 2


def test_not_before_it_is_due(generate: GenerateTask, worker: StartWorker, client: redis.Redis) -> None:
    """A request is claimed at its time by Redis's clock, not before."""
    worker(*ARGS, env=ENV)
    due = client.time()[0] + 2
    result = send(generate, eta=datetime.fromtimestamp(due + 1, UTC))
    wait_until(lambda: client.exists(keys.stream(result.id)), timeout_s=WAIT_S)
    assert client.time()[0] >= due
    assert result.get(timeout=WAIT_S)["text"] == fake_text("p", None, 3)


def test_another_clients_message_and_another_task(
    generate: GenerateTask, producer_app: Celery, worker: StartWorker, client: redis.Redis
) -> None:
    """A message with a time that was put into the queue itself goes to the schedule with the worker's first look at it."""
    result = send(generate)
    (message,) = waiting_messages(client, QUEUE)
    client.rpop(QUEUE)
    message["headers"]["eta"] = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    client.delete(keys.LEDGER)
    client.lpush(QUEUE, json.dumps(message))
    other = producer_app.send_task("celery.accumulate", (1, 2), queue=QUEUE, countdown=HOUR)
    worker(*ARGS, env=ENV)
    wait_until(lambda: scheduled(client) == 2)
    wait_until(lambda: held(client) == client.llen(QUEUE) == 0)
    assert client.hkeys(keys.LEDGER) == [result.id.encode()]
    make_due(client)
    assert result.get(timeout=WAIT_S)["text"] == fake_text("p", None, 3)
    assert other.get(timeout=WAIT_S) == [1, 2]


def test_a_cancel_ends_it_now(generate: GenerateTask, producer_app: Celery, worker: StartWorker) -> None:
    """A scheduled request that is revoked, in either way, ends at once, and not when it would have been due."""
    worker(*ARGS, env=ENV)
    results = [send(generate, countdown=HOUR) for _ in range(2)]
    results[0].revoke()
    producer_app.control.revoke(results[1].id)
    for result in results:
        assert [chunk.finish_reason for chunk in result.stream(timeout=WAIT_S)] == ["cancelled"]
        with pytest.raises(TaskRevokedError):
            result.get(timeout=WAIT_S)


def test_workers_come_and_go(generate: GenerateTask, worker: StartWorker, client: redis.Redis) -> None:
    """A worker that ends, in whatever way, takes no scheduled request with it, and does not wait for one."""
    result = send(generate, countdown=HOUR)
    for number in (signal.SIGTERM, signal.SIGKILL):
        leaving = worker(*ARGS, env=ENV)
        leaving.signal(number)
        leaving.wait()
        assert scheduled(client) == 1
    worker(*ARGS, env=ENV)
    make_due(client)
    answer = result.get(timeout=WAIT_S)
    assert (answer["text"], answer["attempt"]) == (fake_text("p", None, 3), 1)

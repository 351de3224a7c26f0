"""What a dead worker held goes back to the front of its queues, once."""

from __future__ import annotations

import json
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tasks.broker.channel import unacked
from tasks.broker.channel.holding import Holding
from tasks.broker.queues.queues import list_of
from tasks.broker.queues.references import reference
from tasks.server import keys
from tasks.server.connection import connect
from tests.fleet import fetch_all, hold, message, waiting_messages

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis
    from celery import Celery

OWNER = "mac@lab#b1"


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A client that answers in bytes."""
    with closing(connect(redis_url)) as client:
        yield client


def test_messages_go_to_the_front_in_order(client: redis.Redis) -> None:
    """The dead worker's oldest request is taken next, and those that waited come after."""
    client.lpush("tier-3-7B", json.dumps(message("waiting")))
    hold(client, OWNER, [message("first"), message("second"), message("third")])
    assert unacked.restore(client, OWNER) == ["first", "second", "third"]
    assert fetch_all(client, "tier-3-7B") == ["first", "second", "third", "waiting"]
    assert not client.exists(keys.unacked(OWNER), keys.unacked_index(OWNER))


def test_a_message_keeps_its_priority_and_says_that_it_was_delivered(client: redis.Redis) -> None:
    """A batch request stays one, marked as delivered before."""
    hold(client, OWNER, [message("batch", priority=9)])
    unacked.restore(client, OWNER)
    (restored,) = waiting_messages(client, "tier-3-7B\x06\x169")
    assert restored["headers"]["redelivered"] is True
    assert restored["properties"]["delivery_info"]["redelivered"] is True


def test_a_restored_generation_is_in_the_ledger_again(client: redis.Redis) -> None:
    """Its next worker may die while fetching it, so it is watched as when it was submitted; other tasks are not."""
    hold(client, OWNER, [message("mine"), message("other", task="shop.pay")])
    unacked.restore(client, OWNER)
    entry = json.loads(client.hget(keys.LEDGER, "mine") or b"")
    assert entry["queue"] == "tier-3-7B"
    assert json.loads(entry["message"])["headers"]["id"] == "mine"
    assert reference("mine").encode() in client.lrange("tier-3-7B", 0, -1)
    assert abs(entry["at"] - client.time()[0]) < 60
    assert client.hkeys(keys.LEDGER) == [b"mine"]


def test_what_nobody_can_read_is_dropped_and_logged(client: redis.Redis, caplog: pytest.LogCaptureFixture) -> None:
    """Garbage among a dead worker's messages holds up none of the others."""
    hold(client, OWNER, [message("good")])
    for tag, garbage in enumerate(
        [b"\xff", b"[]", b"[1,2,3]", b'[{"headers":{},"properties":{}},"",null]', b"[" * 9999]
    ):
        client.hset(keys.unacked(OWNER), str(tag), garbage)
    nowhere = message("nowhere")
    client.hset(keys.unacked(OWNER), "9", json.dumps([nowhere, "", None]))
    assert unacked.restore(client, OWNER) == ["good"]
    assert not client.exists(keys.unacked(OWNER))
    assert caplog.text.count("held an unreadable message") == 6


def test_many_messages_are_restored_in_order_by_two_at_once(client: redis.Redis, redis_url: str) -> None:
    """Two sweeps at once restore each message exactly once."""
    ids = [f"t{number:03}" for number in range(150)]
    hold(client, OWNER, [message(id_) for id_ in ids])
    start = threading.Barrier(2)
    restored: list[str] = []

    def sweep() -> None:
        with closing(connect(redis_url)) as mine:
            start.wait()
            restored.extend(unacked.restore(mine, OWNER))

    threads = [threading.Thread(target=sweep) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(restored) == ids
    assert sorted(fetch_all(client, "tier-3-7B")) == ids


def fetched_by_kombu(app: Celery, queue: str, priority: int, exchange: str) -> Any:
    """A message that a real channel has fetched with its owner's options, and whose process has died."""
    app.amqp.queues[queue](app.connection_for_write().default_channel).declare()
    app.send_task(
        "tasks.generate", kwargs={"model": "fake:1"}, task_id="t1", queue=queue, priority=priority, exchange=exchange
    )
    connection = app.connection_for_write(transport_options=Holding(OWNER).transport_options())
    got = connection.default_channel.basic_get(queue)
    assert got is not None
    return got


@pytest.mark.parametrize("priority", [0, 3, 5, 9])
def test_what_kombu_fetched_comes_back_as_kombu_queued_it(
    client: redis.Redis, producer_app: Celery, priority: int
) -> None:
    """A message that a real channel holds returns to the list it came from, and can be fetched again."""
    queue = "tier-3-7B"
    fetched_by_kombu(producer_app, queue, priority, "")
    assert client.hlen(keys.unacked(OWNER)) == 1
    assert client.llen(list_of(queue, priority)) == 0
    assert unacked.restore(client, OWNER) == ["t1"]
    assert client.llen(list_of(queue, priority)) == 1
    again = producer_app.connection_for_write(transport_options=Holding("other@lab#b1").transport_options())
    got = again.default_channel.basic_get(queue)
    assert got.headers["id"] == "t1"
    assert got.payload[1]["model"] == "fake:1"
    got.ack()
    assert not client.exists(keys.unacked("other@lab#b1"))


def test_a_binding_says_which_queue_a_routing_key_means(client: redis.Redis) -> None:
    """An exchange may bind a queue under another name than its own."""
    client.sadd("_kombu.binding.shop", "small\x06\x16\x06\x16tier-under-3B", "large\x06\x16\x06\x16tier-3-7B")
    found = message("t1")
    found["properties"]["delivery_info"] = {"exchange": "shop", "routing_key": "large"}
    hold(client, OWNER, [found])
    unacked.restore(client, OWNER)
    assert fetch_all(client, "tier-3-7B") == ["t1"]

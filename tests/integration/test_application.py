"""Somebody else's application with options of its own: the fleet's requests are what they are everywhere, or are refused."""

from __future__ import annotations

import base64
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery, chain, chord, group

from tasks.errors import BrokerMisconfigured, BrokerUnavailable
from tasks.server import keys
from tests.fleet import waiting_messages
from tests.support import forget_connections
from worker_config.celeryconfig import BACKEND, celery_options
from worker_config.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis

QUEUE = "tier-under-3B"
MODEL = "fake:1"
WAIT_S = 60.0


@pytest.fixture
def shop(redis_url: str) -> Iterator[Callable[..., Celery]]:
    """Makes an application of the fleet's Redis, with options on top."""
    made = []

    def make(**options: Any) -> Celery:
        app = Celery("shop", set_as_current=False, include=["tasks.generate"])
        app.loader.import_default_modules()
        settings = Settings(allow_fake=True, redis_url=redis_url, default_model=MODEL)
        app.config_from_object({**celery_options(settings), **options})
        made.append(app)
        return app

    yield make
    for app in made:
        app.close()


@pytest.mark.parametrize("members", [1, 3])
def test_a_chord_while_redis_is_away(shop: Callable[..., Celery], members: int) -> None:
    """Of one with a single member Celery notes the size before it sends anything; the error is the same."""
    away = "redis://127.0.0.1:1/0"
    generate = shop(broker_url=away, result_backend=f"{BACKEND}+{away}").tasks["tasks.generate"]
    with pytest.raises(BrokerUnavailable, match="start it there"):
        chord([generate.si(prompt="a", model=MODEL)] * members)(generate.si(prompt="b", model=MODEL))


def body_of(message: dict[str, Any]) -> Any:
    return json.loads(base64.b64decode(message["body"]))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"broker_transport_options": {"global_keyprefix": "shop:"}}, "global_keyprefix='shop:'"),
        ({"task_protocol": 1}, "task_protocol=1"),
        ({"result_backend": "/1"}, "result_backend is database 1"),
    ],
    ids=["prefix", "protocol", "results"],
)
def test_what_the_fleet_would_not_find(
    shop: Callable[..., Celery], redis_url: str, redis_client: redis.Redis, options: dict[str, Any], said: str
) -> None:
    """Where nobody would find a request or its result, ``delay`` and a group are refused with one error, and nothing is sent."""
    if "result_backend" in options:
        options = {"result_backend": redis_url.removesuffix("/0") + options["result_backend"]}
    generate = shop(**options).tasks["tasks.generate"]
    for send in (generate.s(prompt="a").delay, group(generate.s(prompt="a"), generate.s(prompt="b")).delay):
        with pytest.raises(BrokerMisconfigured) as caught:
            send()
        assert said in str(caught.value)
    assert not redis_client.hlen(keys.LEDGER)


def test_another_name_of_the_server(shop: Callable[..., Celery], redis_url: str, redis_client: redis.Redis) -> None:
    """Results on the same server are taken, whatever name of it leads there."""
    app = shop(result_backend=redis_url.replace("127.0.0.1", "localhost"))
    app.tasks["tasks.generate"].delay(prompt="a")
    assert redis_client.hlen(keys.LEDGER) == 1


def test_defaults_of_its_own_tasks(shop: Callable[..., Celery], redis_client: redis.Redis) -> None:
    """A request asks for its result, and names the application's model, with every link of a chain, whatever a worker's is."""
    generate = shop(task_ignore_result=True).tasks["tasks.generate"]
    result = chain(generate.s(prompt="a"), generate.s(prompt="b")).delay()
    assert not result.ignored
    (message,) = waiting_messages(redis_client, QUEUE)
    assert message["headers"]["ignore_result"] is False
    _, values, options = body_of(message)
    assert values["model"] == options["chain"][0]["kwargs"]["model"] == MODEL


def test_as_many_threads_as_there_are_send_at_once(shop: Callable[..., Celery], redis_client: redis.Redis) -> None:
    """All threads of a process share their connections, of which there are as many as they need; kombu's own bound is ten."""
    app = shop()
    result = app.tasks["tasks.generate"].delay(prompt="a")
    with app.connection_for_write() as connection:
        pool = connection.default_channel.pool
        taken = [pool.get_connection() for _ in range(20)]
        result.revoke(terminate=True)
        app.GroupResult("group", [result]).revoke(terminate=True)
        for one in taken:
            pool.release(one)
    assert redis_client.exists(keys.cancel(result.id))


def test_a_group_is_revoked(shop: Callable[..., Celery], redis_client: redis.Redis) -> None:
    """A group takes one connection of the pool to be sent, and none to be revoked, which workers that start later heed too."""
    app = shop(broker_pool_limit=1)
    generate = app.tasks["tasks.generate"]
    result = group(generate.s(prompt="a"), generate.s(prompt="b")).delay()
    with app.pool.acquire(block=False):
        revoking = threading.Thread(target=result.revoke, kwargs={"terminate": True}, daemon=True)
        revoking.start()
        revoking.join(WAIT_S)
        assert not revoking.is_alive()
    forget_connections()  # kombu sets the limit for the whole process
    assert all(redis_client.exists(keys.cancel(member.id)) for member in result.results)

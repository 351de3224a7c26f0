"""Limits of an API key in a real Redis, as several gateways and a clock that is set meet them."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, cast

import pytest
import redis

from tasks.gateway.answers.desk import Desk, Ticket
from tasks.gateway.records.access_key import LOCAL, AccessKey
from tasks.gateway.records.record import Record
from tasks.gateway.records.store import Store
from tasks.server import keys

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.generate import GenerateTask

HOUR_S = 3_600


class TaskOfNobody:
    """In place of a task: it has results that nobody asks."""

    def AsyncResult(self, task_id: str) -> str:  # noqa: N802 -- Celery's name
        return task_id


@pytest.fixture
def clients(redis_url: str) -> Iterator[list[redis.Redis]]:
    """The clients of two gateways."""
    with ExitStack() as stack:
        yield [stack.enter_context(redis.Redis.from_url(redis_url)) for _ in range(2)]


def record(number: int, key: AccessKey) -> Record:
    """A request of this key."""
    return Record(id=f"chatcmpl-{number}", kind="chat", model="m", created=0, owner=key.id, reserved=10)


@pytest.mark.parametrize(
    ("key", "accepted"),
    [
        (AccessKey(id="a", name="a", at_once=7), 7),
        (AccessKey(id="b", name="b", requests_a_minute=1), 1),
        (AccessKey(id="c", name="c", tokens_a_minute=30), 3),
    ],
)
def test_gateways_share_a_limit_exactly(clients: list[redis.Redis], key: AccessKey, accepted: int) -> None:
    """Of 40 requests at once at two gateways as many are let in as at one, and the others hear when to come back."""
    stores = [Store(client) for client in clients]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda number: stores[number % 2].admit(record(number, key), key), range(40)))
    assert sum(not allowance.exceeded for allowance in found) == accepted
    assert all(allowance.wait_s > 0 for allowance in found if allowance.exceeded)
    assert stores[0].usage(key.id)["refused"] == 40 - accepted


def test_a_request_whose_reply_was_lost_counts_once(clients: list[redis.Redis]) -> None:
    """Redis clients send a command again if the connection breaks before its reply: the request is not refused for itself."""
    # Of both there is nothing left after it, and for seconds nothing comes back.
    key = AccessKey(id="a", name="a", at_once=1, requests_a_minute=1, tokens_a_minute=10)
    store, request = Store(clients[0]), record(1, key)
    first, again = store.admit(request, key), store.admit(request, key)
    assert (first.exceeded, again.exceeded) == ("", "")
    assert (again.requests, again.tokens) == (first.requests, first.tokens) == (0, 0)
    assert (store.usage(key.id)["requests"], store.usage(key.id)["refused"]) == (1, 0)


def test_a_clock_that_is_set_back(clients: list[redis.Redis]) -> None:
    """An allowance that was noted in the future neither fills up nor empties; from then on it fills up as ever."""
    key = AccessKey(id="a", name="a", requests_a_minute=3)  # one comes back in 20 s
    store, client = Store(clients[0]), clients[0]
    assert store.admit(record(1, key), key).requests == 2
    client.hset(keys.gateway_allowance(key.id), mapping={"at": time.time() + HOUR_S, "requests": 2})
    assert [store.admit(record(number, key), key).requests for number in (2, 3)] == [1, 0]
    client.hset(keys.gateway_allowance(key.id), "at", time.time() - HOUR_S)
    assert store.admit(record(4, key), key).requests == 2


def test_a_clock_that_is_set_forward(clients: list[redis.Redis]) -> None:
    """Open requests that lapse, as on a machine that slept, count again once their gateway says so; ended ones do not."""
    key = AccessKey(id="a", name="a", at_once=2)
    store, client = Store(clients[0]), clients[0]
    lasting, ended = record(1, key), record(2, key)
    for request in (lasting, ended):
        assert not store.admit(request, key).exceeded
    client.zadd(keys.gateway_open(key.id), {request.id: time.time() - HOUR_S for request in (lasting, ended)})
    assert not store.admit(record(3, key), key).exceeded  # takes lapsed ones away
    Store(clients[1]).charge(ended, key, 1, 1)
    store.renew([lasting, ended])
    counted: Any = client.zrange(keys.gateway_open(key.id), 0, -1)
    assert {name.decode() for name in counted} == {lasting.id, "chatcmpl-3"}
    assert store.admit(record(4, key), key).exceeded == "concurrency"


def test_records_that_redis_lost(clients: list[redis.Redis]) -> None:
    """A gateway writes the records of its open requests again, after a Redis that came back older: others can continue them."""
    key = AccessKey(id="a", name="a", at_once=1)
    store, lost = Store(clients[0], record_ttl_s=60), record(1, key)
    store.admit(lost, key)
    clients[0].delete(keys.gateway_request(lost.id), keys.gateway_open(key.id))
    store.renew([lost])
    assert Store(clients[1]).record(lost.id) == lost
    assert 0 < clients[0].ttl(keys.gateway_request(lost.id)) <= 60
    assert store.admit(record(2, key), key).exceeded == "concurrency"


def test_records_of_what_has_ended(clients: list[redis.Redis]) -> None:
    """A gateway whose answer ends writes the record that Redis lost meanwhile, and counts the answer once."""
    key = AccessKey(id="a", name="a")
    store, lost = Store(clients[0], record_ttl_s=60), record(1, key)
    store.admit(lost, key)
    clients[0].delete(keys.gateway_request(lost.id), keys.gateway_open(key.id))
    assert store.uncharged([lost]) == [True]
    for gateway in (store, Store(clients[1])):
        gateway.charge(lost, key, 3, 4)
    assert gateway.record(lost.id) == lost
    assert store.uncharged([record(2, key), lost]) == [True, False]
    assert 0 < clients[0].ttl(keys.gateway_request(lost.id)) <= 60
    assert (store.usage(key.id)["prompt_tokens"], store.usage(key.id)["completion_tokens"]) == (3, 4)


def test_redis_loses_the_end_too(clients: list[redis.Redis]) -> None:
    """A gateway knows what has ended a short time ago, and writes it again where Redis came back older than that."""
    key = AccessKey(id="a", name="a")
    store, lost = Store(clients[0]), record(1, key)
    desk = Desk(cast("GenerateTask", TaskOfNobody()), {}, store)
    store.admit(lost, key)

    async def lose() -> Record:
        await desk.charge(Ticket(lost, key, ()), 3, 4)
        clients[0].flushall()
        found = await desk.find(lost.id, key)
        keeping = asyncio.create_task(desk.keep_open(0.01))
        async with asyncio.timeout(30):
            while store.uncharged([lost])[0]:
                await asyncio.sleep(0.01)
        keeping.cancel()
        return found.record

    assert asyncio.run(lose()) == lost
    assert Store(clients[1]).record(lost.id) == lost
    assert store.usage(key.id)["completion_tokens"] == 4


def test_which_keys_were_revoked(clients: list[redis.Redis]) -> None:
    """Those that were made and are not there any more; who needs no key has none to lose."""
    store = Store(clients[0])
    for name in ("a", "b"):
        store.add_key(name, AccessKey(id=name, name=name))
    assert store.revoked({"a", "b", "gone", LOCAL.id}) == {"gone"}
    assert store.revoked({LOCAL.id}) == set()

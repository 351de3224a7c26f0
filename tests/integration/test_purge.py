"""What is purged stays purged, and whoever waits for it learns that, on the stream and by ``get()``."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from celery import chain, chord
from celery.exceptions import ChordError, TaskRevokedError

from tasks.broker.inventory.purge import take_out
from tasks.broker.queues.ledger import Ledger, Lost
from tasks.broker.queues.queues import aside_list, lists_of
from tasks.engine.fake import fake_text
from tasks.errors import BrokerUnavailable
from tasks.server import keys
from tasks.server.connection import connect
from tests.fleet import message
from tests.support import ROOT, Reader, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis
    from celery import Celery

    from tasks.client.result import GenerateResult
    from tasks.generate import GenerateTask
    from tests.conftest import StartWorker

pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning")
WAIT_S = 60.0
QUEUE = "tier-under-3B"
OTHER = "tier-3-7B"
MODEL = "fake:1"


def typed(*words: str) -> str:
    """What a command of Celery's prints."""
    command = [sys.executable, "-m", "celery", "-A", "tasks", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True).stdout


def number_in(pattern: str, said: str) -> int:
    found = re.search(pattern, said)
    assert found, said
    return int(found.group(1))


def by_command(_app: Celery) -> int:
    return number_in(r"Purged (\d+) messages", typed("purge", "-f"))


def by_amqp_command(_app: Celery) -> int:
    return number_in(r"(\d+) messages deleted", typed("amqp", "queue.purge", QUEUE))


def by_control(app: Celery) -> int:
    return int(app.control.purge())


def by_deletion(app: Celery) -> int:
    with app.connection_for_write() as connection:
        return int(connection.default_channel.queue_delete(QUEUE))


WAYS: list[Callable[[Celery], int]] = [by_command, by_amqp_command, by_control, by_deletion]


def send(generate: GenerateTask, count: int, **options: Any) -> list[GenerateResult]:
    return [generate.apply_async(kwargs={"prompt": f"p{n}", "model": MODEL}, **options) for n in range(count)]


def ends(result: GenerateResult) -> tuple[list[str], str]:
    """How a request's stream ends, and what ``get()`` raises."""
    with pytest.raises(TaskRevokedError) as caught:
        result.get(timeout=WAIT_S)
    return [chunk.finish_reason or "" for chunk in result.stream(timeout=WAIT_S)], str(caught.value)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A client that answers in bytes."""
    with closing(connect(redis_url)) as client:
        yield client


def lost_in(client: redis.Redis) -> list[Lost]:
    """What the sweep would find in the ledger if all that is open were overdue."""
    now = 0.0
    ledger = Ledger(client, lambda: now, grace_s=0.0)
    ledger.lost()
    now = 1e6
    return ledger.lost()


@pytest.mark.parametrize("purge", WAYS)
def test_it_stays_purged(
    generate: GenerateTask, producer_app: Celery, client: redis.Redis, purge: Callable[[Celery], int]
) -> None:
    """However a queue is purged, all that waits in it ends as cancelled, of every priority and in every lane."""
    results = [*send(generate, 3), *send(generate, 2, priority=9), *send(generate, 1, countdown=3600)]
    foreign, aside = message("11111111-foreign", QUEUE), message("22222222-aside", QUEUE)
    client.lpush(QUEUE, json.dumps(foreign))  # without an entry in the ledger
    client.lpush(aside_list(QUEUE, 0, MODEL), json.dumps(aside))
    client.zadd(keys.ASIDE, {aside_list(QUEUE, 0, MODEL): 1.0})
    client.lpush(QUEUE, "nonsense", json.dumps(message("33333333", QUEUE, task="shop.count")))
    results += [generate.AsyncResult(other["headers"]["id"]) for other in (foreign, aside)]
    readers = [Reader(result) for result in results]
    assert purge(producer_app) == 10
    for result, reader in zip(results, readers, strict=True):
        assert ends(result) == (["cancelled"], "purged")
        reader.join(WAIT_S)
        assert reader.finish_reasons == ["cancelled"]
    assert not client.exists(keys.LEDGER, keys.scheduled(QUEUE), aside_list(QUEUE, 0, MODEL), *lists_of(QUEUE))
    assert lost_in(client) == []


def test_another_queue_is_not_touched(generate: GenerateTask, producer_app: Celery, client: redis.Redis) -> None:
    """Only what the purged queue has is gone."""
    (mine,) = send(generate, 1)
    send(generate, 1, queue=OTHER)
    with producer_app.connection_for_write() as connection:
        assert connection.default_channel.queue_purge(QUEUE) == 1
        assert connection.default_channel.queue_purge(QUEUE) == 0
    assert ends(mine) == (["cancelled"], "purged")
    assert client.llen(OTHER) == client.hlen(keys.LEDGER) == 1


def test_chords_and_chains_end(generate: GenerateTask, producer_app: Celery) -> None:
    """Who waits for the end of a chain, or for a chord's callback, is told as well."""
    link = generate.s(prompt="a", model=MODEL)
    whole = chain(link, generate.s(prompt="{previous}", model=MODEL)).apply_async()
    joined = chord([generate.s(prompt=f"{n}", model=MODEL) for n in range(3)])(generate.s(prompt="b", model=MODEL))
    assert producer_app.control.purge() == 4
    with pytest.raises(TaskRevokedError):
        whole.get(timeout=WAIT_S)
    with pytest.raises((ChordError, TaskRevokedError)):
        joined.get(timeout=WAIT_S)


def test_what_an_interrupted_purge_leaves(generate: GenerateTask, client: redis.Redis) -> None:
    """A purge that is killed after it took the messages leaves them to the sweep as purged, not as lost."""
    (result,) = send(generate, 1)
    assert [count for count, _ in take_out(client, QUEUE)] == [1]
    assert not client.llen(QUEUE)
    (left,) = lost_in(client)
    assert (left.task_id, left.purged) == (result.id, True)


def test_a_running_request_goes_on(
    generate: GenerateTask, worker: StartWorker, client: redis.Redis, producer_app: Celery
) -> None:
    """A request that a worker runs is not in the queue any more; a second message of it that is, changes nothing."""
    worker("-c", "1", "-Q", QUEUE, env={"CELERY_MLX_MODELS": "fake:20"})
    running = generate.delay(prompt="r", model="fake:20", max_tokens=500)
    next(iter(running.stream(timeout=WAIT_S)))
    waiting = generate.delay(prompt="w", model="fake:20", max_tokens=3)
    wait_until(lambda: client.llen(QUEUE) == 1)
    client.lpush(QUEUE, json.dumps(message(running.id, QUEUE)))
    assert producer_app.control.purge() == 2
    assert ends(waiting) == (["cancelled"], "purged")
    assert running.get(timeout=WAIT_S)["text"] == fake_text("r", None, 500)


def test_who_may_not_purge_is_told(client: redis.Redis) -> None:
    """A user without the right to a queue gets an error, and not that the queue was empty."""
    client.acl_setuser("viewer", enabled=True, nopass=True, commands=["+@all"], keys=["%R~*"], reset=True)
    where = client.connection_pool.connection_kwargs
    try:
        with (
            closing(connect(f"redis://viewer:any@{where['host']}:{where['port']}/0")) as viewer,
            pytest.raises(BrokerUnavailable, match=f"purging {QUEUE}"),
        ):
            list(take_out(viewer, QUEUE))
    finally:
        client.acl_deluser("viewer")

"""The same task id again: the same request, which is computed once, or another one, which is refused."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from tasks.engine.fake import fake_text
from tasks.errors import InvalidRequest
from tasks.messages.journal import decode
from tasks.server import keys
from tests.support import Reader, wait_until

if TYPE_CHECKING:
    import redis
    from celery import Celery

    from tasks.generate import GenerateTask
    from tests.conftest import StartWorker
    from tests.support import Worker

pytestmark = pytest.mark.xdist_group("same-id")
WAIT_S = 60.0
MODEL = "fake:10"
OTHER = "a request with other parameters was sent with this id before; choose another id"


@pytest.fixture(scope="module")
def generate(shared_app: Celery) -> GenerateTask:
    from tasks import generate

    assert generate.app is shared_app
    return generate


@pytest.fixture(scope="module")
def node(shared_worker: StartWorker) -> Worker:
    return shared_worker("-c", "4", env={"CELERY_MLX_MODELS": MODEL})


def send(generate: GenerateTask, task_id: str, prompt: str, tokens: int = 5, **values: Any) -> Any:
    kwargs = {"prompt": prompt, "model": MODEL, "max_tokens": tokens, **values}
    return generate.apply_async(kwargs=kwargs, task_id=task_id)


def claims(client: redis.Redis, task_id: str) -> int:
    stored: Any = client.xrange(keys.stream(task_id))
    return sum(getattr(decode(fields["d"]), "type", "") == "claim" for _, fields in stored)


def test_with_the_same_parameters(generate: GenerateTask, node: Worker, shared_redis: redis.Redis) -> None:
    """It is computed once, whether it is sent again while it runs or after its end, and however its parameters are written."""
    # With its model still to come, a second delivery may be claimed as it is fetched, and the first anew (test_failover.py).
    assert send(generate, str(uuid.uuid4()), "first").get(timeout=WAIT_S)["text"]
    task_id = str(uuid.uuid4())
    results = [send(generate, task_id, "same", 60) for _ in range(2)]
    results.append(send(generate, task_id, "same", 60, stop=None, seed=None))
    assert {result.get(timeout=WAIT_S)["text"] for result in results} == {fake_text("same", None, 60)}
    again = send(generate, task_id, "same", 60)
    assert Reader(again).whole() == fake_text("same", None, 60)
    wait_until(lambda: (record := node.record()) is not None and not record.busy)
    assert claims(shared_redis, task_id) == 1


@pytest.mark.parametrize("when", ["while it runs", "after its end", "after its revoke", "from its stored result"])
def test_with_other_parameters(generate: GenerateTask, node: Worker, shared_redis: redis.Redis, when: str) -> None:
    """It is refused where it is sent, and the first request's stream and result stay what they are."""
    task_id = str(uuid.uuid4())
    assert node.process.poll() is None
    reader = Reader(send(generate, task_id, "first", 5000 if when == "after its revoke" else 30))
    wait_until(lambda: reader.indices)
    if when == "after its revoke":
        reader.result.revoke(terminate=True)
    if when != "while it runs":
        wait_until(reader.result.ready)
    if when == "from its stored result":
        shared_redis.delete(keys.stream(task_id))
    for values in ({"prompt": "second"}, {"prompt": "first", "tokens": 31}, {"prompt": "first", "seed": 1}):
        with pytest.raises(InvalidRequest, match=OTHER):
            send(generate, task_id, **values)
    with pytest.raises(InvalidRequest, match=OTHER):
        generate.apply_async(kwargs={"prompt": "later", "model": MODEL}, task_id=task_id, countdown=60)
    reader.join(WAIT_S)
    if when == "after its revoke":
        assert reader.finish_reasons == ["cancelled"]
        return
    assert reader.whole() == reader.result.get(timeout=WAIT_S)["text"] == fake_text("first", None, 30)


def test_while_it_waits(generate: GenerateTask, shared_redis: redis.Redis) -> None:
    """A request that no worker has seen keeps its id, too; one that was refused for a full queue has none."""
    task_id = str(uuid.uuid4())
    kwargs = {"prompt": "first", "model": "fake:0:tier=3-7B"}
    queue = "nobody-serves-this"
    generate.apply_async(kwargs=kwargs, task_id=task_id, queue=queue)
    with pytest.raises(InvalidRequest, match=OTHER):
        generate.apply_async(kwargs={**kwargs, "prompt": "second"}, task_id=task_id, queue=queue)
    assert shared_redis.llen(queue) == 1


def test_from_another_client(generate: GenerateTask, node: Worker, shared_redis: redis.Redis) -> None:
    """A message of another language's client is dropped, with one line in the log; the first request is not disturbed."""
    task_id = str(uuid.uuid4())
    reader = Reader(send(generate, task_id, "first", 800))
    wait_until(lambda: reader.indices)
    record = node.record()
    assert record is not None
    (held,) = [held for held in shared_redis.hvals(keys.unacked(record.identity)) if task_id in held]
    message, _, queue = json.loads(held)
    for kwargs in ({"prompt": "second", "model": MODEL}, {"prompt": "third", "model": MODEL, "top_k": "no number"}):
        other = {**message, "body": json.dumps([[], kwargs, {}])}
        other["properties"] = {**message["properties"], "body_encoding": "utf-8", "delivery_tag": str(uuid.uuid4())}
        shared_redis.lpush(queue, json.dumps(other))
    wait_until(lambda: node.log().count(OTHER) == 2, timeout_s=WAIT_S, about="two dropped messages")
    assert reader.whole() == reader.result.get(timeout=WAIT_S)["text"] == fake_text("first", None, 800)
    wait_until(lambda: not shared_redis.exists(keys.unacked(record.identity)))

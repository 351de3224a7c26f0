"""Signals: a worker that drains finishes what runs, one that is hurried hands it back, and nothing is lost or repeated."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tasks.engine.fake import fake_text
from tasks.server import keys
from tests.support import Reader, wait_until

if TYPE_CHECKING:
    import redis

    from tasks.client.result import GenerateResult
    from tasks.demo.embedded import EmbeddedServer
    from tasks.generate import GenerateTask
    from tests.conftest import StartWorker
    from tests.support import Worker

WAIT_S = 90.0
#: Slow enough for what happens meanwhile on a busy machine.
MODEL = "fake:30"
ARGS = ("-c", "4", "-Q", "tier-under-3B")


class Readers:
    """One reader for each stream."""

    def __init__(self, results: list[GenerateResult]) -> None:
        self.readers = [Reader(result, WAIT_S) for result in results]

    def wait_until_all_run(self) -> None:
        wait_until(lambda: all(len(reader.chunks) >= 3 for reader in self.readers), timeout_s=WAIT_S)

    def join(self) -> list[str]:
        """The texts, once all streams have ended; no index was lost or came twice."""
        texts = [reader.whole() for reader in self.readers]
        assert [reader.finish_reasons for reader in self.readers] == [["length"]] * len(texts)
        return texts


def send(generate: GenerateTask, count: int, max_tokens: int, **options: Any) -> list[GenerateResult]:
    values: dict[str, Any] = {"model": MODEL, "max_tokens": max_tokens}
    return [generate.apply_async(kwargs={"prompt": f"s{n}", **values}, **options) for n in range(count)]


def claims(client: redis.Redis, task_id: str) -> list[dict[str, Any]]:
    """All claims in a request's journal."""
    entries: Any = client.xrange(keys.stream(task_id))
    records = [json.loads(fields["d"]) for _, fields in entries]
    return [record for record in records if record["type"] == "claim"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_drains(
    generate: GenerateTask, worker: StartWorker, redis_client: redis.Redis, number: signal.Signals
) -> None:
    """What runs is answered to its end, what waits stays in its queue, and the worker leaves without a trace."""
    node = worker(*ARGS)
    results = send(generate, 4, 200)
    readers = Readers(results)
    readers.wait_until_all_run()
    node.signal(number)
    wait_until(lambda: (record := node.record()) is not None and record.status == "draining")
    (later,) = send(generate, 1, 5)
    assert readers.join() == [fake_text(f"s{n}", None, 200) for n in range(4)]
    assert [result.get(timeout=WAIT_S)["attempt"] for result in results] == [1] * 4
    assert node.wait() == 0
    assert node.record() is None
    assert redis_client.llen("tier-under-3B") == 1
    assert not later.ready()
    assert not redis_client.keys(keys.unacked("*"))
    assert "Traceback" not in node.log()


def test_an_idle_worker_ends_at_once(worker: StartWorker) -> None:
    """A worker without work does not wait for anything."""
    node = worker(*ARGS, env={"CELERY_MLX_DRAIN_TIMEOUT_S": "3600"})
    node.signal(signal.SIGTERM)
    assert node.wait() == 0


def test_nobody_reads_its_output(generate: GenerateTask, worker: StartWorker) -> None:
    """A worker whose standard output was closed drains at SIGTERM, and what runs is answered to its end."""
    read, write = os.pipe()
    try:
        node = worker(*ARGS, stdout=write)
    finally:
        os.close(write)
        os.close(read)
    readers = Readers(send(generate, 1, 200))
    readers.wait_until_all_run()
    node.signal(signal.SIGTERM)
    assert readers.join() == [fake_text("s0", None, 200)]
    assert node.wait() == 0
    assert node.record() is None


def _hurry(node: Worker, number: signal.Signals) -> None:
    if number == signal.SIGTERM:
        node.signal(number)
        wait_until(lambda: (record := node.record()) is not None and record.status == "draining")
    node.signal(number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_hurried_worker_hands_back(
    generate: GenerateTask, worker: StartWorker, redis_client: redis.Redis, number: signal.Signals
) -> None:
    """After a second SIGTERM, or SIGQUIT, the streams go on at another worker where they were, and none is a suspect."""
    node = worker(*ARGS, env={"CELERY_MLX_DRAIN_TIMEOUT_S": "3600"})
    results = send(generate, 4, 300)
    readers = Readers(results)
    readers.wait_until_all_run()
    _hurry(node, number)
    assert node.wait() == 0
    assert node.record() is None
    assert redis_client.llen("tier-under-3B") == 4
    second = worker(*ARGS)
    assert readers.join() == [fake_text(f"s{n}", None, 300) for n in range(4)]
    for result, chunks in zip(results, [reader.chunks for reader in readers.readers], strict=True):
        answer = result.get(timeout=WAIT_S)
        assert answer["text"] == "".join(chunk.text for chunk in chunks)
        assert (answer["attempt"], answer["worker"]) == (2, second.node)
        assert [claim["crashes"] for claim in claims(redis_client, result.id)] == [0, 0]
    assert "Traceback" not in node.log()


def test_a_drain_ends_by_its_time(generate: GenerateTask, worker: StartWorker, redis_client: redis.Redis) -> None:
    """What is not answered when the drain's time is over is handed back, without a second signal."""
    node = worker(*ARGS, env={"CELERY_MLX_DRAIN_TIMEOUT_S": "0.5"})
    for result in send(generate, 2, 5000):
        next(iter(result.stream(timeout=WAIT_S)))
    node.signal(signal.SIGTERM)
    assert node.wait() == 0
    assert redis_client.llen("tier-under-3B") == 2
    assert "giving 2 requests back to their queues" in node.log()


def test_hurried_while_redis_is_away(generate: GenerateTask, worker: StartWorker, redis_server: EmbeddedServer) -> None:
    """A worker that can hand nothing back does not wait for Redis: it ends, says so, and leaves the rest to the sweep."""
    node = worker(*ARGS, env={"CELERY_MLX_DRAIN_TIMEOUT_S": "3600"})
    for result in send(generate, 2, 5000):
        next(iter(result.stream(timeout=WAIT_S)))
    redis_server.stop()
    node.signal(signal.SIGTERM)
    node.signal(signal.SIGQUIT)
    assert node.wait() == os.EX_TEMPFAIL
    assert "2 requests cannot be given back; the sweep will give them to others" in node.log()


def test_a_cancel_while_it_drains(generate: GenerateTask, worker: StartWorker) -> None:
    """A draining worker still hears a cancel, and its other requests go on to their ends."""
    node = worker(*ARGS)
    cancelled, other = send(generate, 2, 400)
    readers = Readers([other])
    stream = cancelled.stream(timeout=WAIT_S)
    next(stream)
    node.signal(signal.SIGTERM)
    wait_until(lambda: (record := node.record()) is not None and record.status == "draining")
    cancelled.revoke(terminate=True)
    assert [*stream][-1].finish_reason == "cancelled"
    assert readers.join() == [fake_text("s1", None, 400)]
    assert node.wait() == 0


def test_remote_shutdown_drains(generate: GenerateTask, worker: StartWorker) -> None:
    """Celery's ``shutdown``, which is Flower's button too, lets what runs end, as SIGTERM does."""
    leaving = worker(*ARGS)
    readers = Readers(send(generate, 2, 300))
    readers.wait_until_all_run()
    told = generate.app.control.broadcast("shutdown", reply=True, timeout=WAIT_S, limit=1)
    assert told == [{leaving.node: {"ok": "draining"}}]
    wait_until(lambda: (record := leaving.record()) is not None and record.status == "draining")
    assert readers.join() == [fake_text(f"s{n}", None, 300) for n in range(2)]
    assert leaving.wait() == 0
    assert leaving.record() is None


def test_slots_cannot_be_changed(generate: GenerateTask, worker: StartWorker) -> None:
    """Flower's other buttons, for pools that grow, get one clear error, and leave no traceback in the log."""
    member = worker(*ARGS)
    control = generate.app.control
    for name, options in (("pool_grow", {"n": 2}), ("pool_shrink", {"n": 2}), ("autoscale", {"max": 4, "min": 1})):
        ((answer,),) = [
            reply.values() for reply in control.broadcast(name, arguments=options, reply=True, timeout=WAIT_S, limit=1)
        ]
        assert answer["error"].startswith("slots follow from the hardware")
    ((answer,),) = [reply.values() for reply in control.pool_restart(reply=True, timeout=WAIT_S, limit=1)]
    assert "error" in answer
    assert generate.delay(prompt="a", model=MODEL, max_tokens=3).get(timeout=WAIT_S)["text"] == fake_text("a", None, 3)
    assert "Traceback" not in member.log()

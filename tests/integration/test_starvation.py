"""A worker that stopped fetching ends for its supervisor; one that has a reason to take nothing stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.engine.fake import fake_text
from tests.support import Reader, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    import redis
    from celery import Celery

    from tasks.generate import GenerateTask
    from tests.conftest import StartWorker

QUEUE = "tier-under-3B"
MODEL = "fake:5"
ENV = {"CELERY_MLX_MODELS": MODEL, "CELERY_MLX_STARVED_AFTER_S": "2", "CELERY_MLX_HEARTBEAT_S": "0.5"}


def test_a_worker_that_receives_nothing_ends(producer_app: Celery, worker: StartWorker, tmp_path: Path) -> None:
    """After two requests nobody fetches: the worker ends with 75 and one line, and another one serves the third."""
    from tasks import generate

    deaf = worker("-Q", QUEUE, "-c", "2", env=ENV, app="tests.deaf")
    for number in range(2):
        assert generate.delay(prompt=f"p{number}", model=MODEL, max_tokens=3).get(timeout=60)["text"]
    third = generate.delay(prompt="third", model=MODEL, max_tokens=3)
    assert deaf.wait(60) == 75
    assert deaf.log().count("1 requests wait and there is room for them, but none was received for 2 s") == 1
    worker("-Q", QUEUE, "-B", "-s", str(tmp_path / "beat"), env=ENV)
    assert third.get(timeout=60)["text"]


def test_a_worker_whose_code_was_replaced_ends(generate: GenerateTask, worker: StartWorker, tmp_path: Path) -> None:
    """Its package was upgraded, and an engine started from the new code: what runs ends, what waits for an engine goes back to
    its queue, and the worker ends with 75 and one line."""
    env = {**ENV, "TEST_REPLACED_BEFORE": "fake:6"}
    old = worker("-Q", QUEUE, "-c", "2", env=env, app="tests.older")
    running = Reader(generate.delay(prompt="running", model=MODEL, max_tokens=300))
    wait_until(lambda: running.indices)
    waiting = generate.delay(prompt="waiting", model="fake:6", max_tokens=3)
    assert old.wait(60) == 75
    assert old.log().count("can start no engine any more, because its code was replaced after its start") == 1
    assert running.whole() == fake_text("running", None, 300)
    worker("-Q", QUEUE, "-B", "-s", str(tmp_path / "beat"), env=ENV)
    assert waiting.get(timeout=60)["text"] == fake_text("waiting", None, 3)


def test_a_worker_with_a_reason_stays(producer_app: Celery, worker: StartWorker, redis_client: redis.Redis) -> None:
    """Full, paused, or told not to consume the queue: a backlog is nothing to end for."""
    from tasks import generate

    assert generate.app is producer_app
    node = worker("-Q", QUEUE, "-c", "1", env=ENV)
    long = generate.delay(prompt="long", model=MODEL, max_tokens=800)
    waiting = [generate.delay(prompt=f"p{number}", model=MODEL, max_tokens=1) for number in range(3)]
    assert long.get(timeout=60)["usage"]["completion_tokens"] == 800
    for result in waiting:
        result.get(timeout=60)
    producer_app.control.cancel_consumer(QUEUE, destination=[node.node], reply=True, timeout=60)
    left = generate.delay(prompt="left", model=MODEL, max_tokens=1)
    # Long enough for its time to be up twice, by the beats that it makes meanwhile.
    before = node.record()
    assert before is not None
    wait_until(lambda: (record := node.record()) is not None and record.beat_at > before.beat_at + 5)
    assert redis_client.llen(QUEUE) == 1
    assert node.process.poll() is None
    producer_app.control.add_consumer(QUEUE, destination=[node.node], reply=True, timeout=60)
    assert left.get(timeout=60)["text"]

"""A worker that is killed at one certain moment of a request: its reader and its result lack nothing, whichever it was."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.parts.catalogue import write_catalogue
from benchmarks.parts.tiny_model import make_tiny_model
from tasks.engine.fake import fake_text
from tasks.messages.journal import Claim, End, Start, Token, decode
from tasks.server import keys
from tests.support import Reader, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    import redis
    from celery import Celery

    from tasks.generate import GenerateTask
    from tests.conftest import StartWorker
    from tests.support import Worker

# Celery 5.7 stores and reads results with commands that redis-py 8 calls deprecated.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning"),
]

WAIT_S = 90.0
QUEUE = "tier-under-3B"
MODEL = "fake:10"
TOKENS = 12
ENV = {"CELERY_MLX_HEARTBEAT_S": "0.5", "CELERY_MLX_DEAD_AFTER_S": "10"}
SCRIPT = "Gr 9,dwj!"


def entries(client: redis.Redis, task_id: str) -> list[Any]:
    stored: Any = client.xrange(keys.stream(task_id))
    return [decode(fields["d"]) for _, fields in stored]


def die(worker: Worker) -> None:
    assert worker.wait(WAIT_S) == -signal.SIGKILL


@pytest.mark.parametrize(("point", "attempts"), [("claimed", 2), ("ended", 1)])
def test_another_worker_goes_on(
    generate: GenerateTask,
    worker: StartWorker,
    redis_client: redis.Redis,
    tmp_path: Path,
    point: str,
    attempts: int,
) -> None:
    """Killed after its claim, or between the journal's end and the result: one end, one result, nothing computed twice."""
    dying = worker("-Q", QUEUE, env={**ENV, "TEST_DIE_AT": point}, app="tests.dying")
    reading = Reader(generate.delay(prompt="kill", model=MODEL, max_tokens=TOKENS), WAIT_S)
    die(dying)
    other = worker("-Q", QUEUE, "-B", "-s", str(tmp_path / "beat"), env=ENV)
    wanted = fake_text("kill", None, TOKENS)
    assert reading.whole() == wanted
    answer = reading.result.get(timeout=WAIT_S)
    assert (answer["text"], answer["worker"]) == (wanted, other.node)
    written = entries(redis_client, reading.result.id)
    assert sum(isinstance(entry, Claim) for entry in written) == attempts
    assert sum(isinstance(entry, End) for entry in written) == 1
    assert sum(len(entry.ids) for entry in written if isinstance(entry, Token)) == TOKENS


def test_with_its_result_everything_is_done(
    generate: GenerateTask, worker: StartWorker, redis_client: redis.Redis
) -> None:
    """The result comes with the acknowledgement: a worker that is killed right after it leaves nothing to do for anybody."""
    dying = worker("-Q", QUEUE, env={**ENV, "TEST_DIE_AT": "answered"}, app="tests.dying")
    record = dying.record()
    assert record is not None
    reading = Reader(generate.delay(prompt="kill", model=MODEL, max_tokens=TOKENS), WAIT_S)
    die(dying)
    assert reading.whole() == fake_text("kill", None, TOKENS)
    assert reading.result.get(timeout=WAIT_S)["text"] == reading.text
    assert not redis_client.exists(keys.unacked(record.identity), QUEUE)
    assert not redis_client.hexists(keys.LEDGER, reading.result.id)


def test_vectors_that_were_lost_with_their_worker_are_computed_again(
    producer_app: Celery, worker: StartWorker, redis_client: redis.Redis, tmp_path: Path
) -> None:
    """Killed between the journal's end and the result of ``embed``, whose vectors were nowhere else: one end, one result."""
    from tasks import embed

    assert embed.app is producer_app
    dying = worker("-Q", QUEUE, env={**ENV, "TEST_DIE_AT": "ended"}, app="tests.dying")
    result = embed.delay(input=["one", "two"], model="fake:1:dimensions=3")
    die(dying)
    other = worker("-Q", QUEUE, "-B", "-s", str(tmp_path / "beat"), env=ENV)
    answer = result.get(timeout=WAIT_S)
    assert [len(item["embedding"]) for item in answer["data"]] == [3, 3]
    assert (answer["worker"], answer["attempt"]) == (other.node, 1)
    assert [type(entry) for entry in entries(redis_client, result.id)] == [Claim, Start, End]


def test_within_a_stop_string(
    generate: GenerateTask, worker: StartWorker, redis_client: redis.Redis, tmp_path: Path
) -> None:
    """A real model's request, killed when half of what may be a stop string was computed (tests/integration/test_families.py
    has those that are killed within a character)."""
    stop = ",dw"
    folder = make_tiny_model(tmp_path / "scripted", script=SCRIPT, chat_template=False)
    catalogue = write_catalogue(tmp_path, {"scripted": folder})
    env = {**ENV, "CELERY_MLX_CATALOGUE": str(catalogue)}
    dying = worker("-Q", QUEUE, env={**env, "TEST_DIE_AT": "half"}, app="tests.dying")
    values = {"prompt": "say it", "model": "scripted", "max_tokens": 100, "temperature": 0, "stop": stop}
    sent = generate.app.send_task(generate.name, kwargs=values, queue=QUEUE, result_cls=generate.AsyncResult)
    reading = Reader(generate.AsyncResult(sent.id), WAIT_S)
    die(dying)
    wait_until(lambda: entries(redis_client, sent.id))
    before = "".join(entry.text for entry in entries(redis_client, sent.id) if isinstance(entry, Token))
    wanted = SCRIPT[: SCRIPT.index(stop)]
    assert before == wanted
    worker("-Q", QUEUE, "-B", "-s", str(tmp_path / "beat"), env=env)
    assert reading.whole() == wanted
    answer = reading.result.get(timeout=WAIT_S)
    assert (answer["text"], answer["finish_reason"], answer["attempt"]) == (wanted, "stop", 2)

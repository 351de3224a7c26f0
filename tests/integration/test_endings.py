"""A result is stored behind the end of its journal, also where Redis has lost that end meanwhile."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from celery import states
from celery.exceptions import Reject

from tasks.broker.channel.holding import OPTION, Holding
from tasks.journal.items import Held
from tasks.journal.writer import Journal
from tasks.messages.journal import Start, Token
from tasks.server import keys
from tasks.server.connection import connect
from tasks.server.pipeline import AutoPipeline
from tasks.worker.attempts.attempt import Attempt
from tasks.worker.attempts.endings import Endings
from tasks.worker.attempts.job import Job, current_job, set_current_job
from tasks.worker.attempts.publisher import Publisher
from tasks.worker.attempts.recovery import Recovery
from tests.fleet import message
from tests.integration.test_backend import IDENTITY, hold, request

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import redis
    from celery import Celery

    from tasks.journal.items import Append
    from tasks.messages.journal import Entry

# Celery 5.7 stores and reads results with commands that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning")

TASK = "t1"
STREAM, RESULT = keys.stream(TASK), f"celery-task-meta-{TASK}"
ANSWER = {"text": "ab"}


@pytest.fixture
def journal(redis_url: str) -> Iterator[Journal]:
    with closing(connect(redis_url)) as client:
        yield Journal(client)


@pytest.fixture
def attempt(
    producer_app: Celery, redis_url: str, journal: Journal, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Attempt]:
    """A request that this process, as a worker, has just answered on this thread, and whose result is not stored."""
    publisher = Publisher(journal, IDENTITY)
    with closing(AutoPipeline(redis_url)) as scripts:
        holding = Holding(IDENTITY, scripts=scripts, journals=Endings(publisher))
        monkeypatch.setitem(producer_app.conf.broker_transport_options, OPTION, holding)
        hold(redis_client)
        made = Attempt(TASK, journal.claim(TASK, IDENTITY), "m")
        end = made.end("stop")
        said: list[Entry] = [
            Start(attempt=1, model="m", revision="r", prompt_tokens=1, cached_tokens=0, prompt_hash="h"),
            Token(attempt=1, index=0, ids=[7], text="a"),
            Token(attempt=1, index=1, ids=[8], text="b"),
            end,
        ]
        assert set(journal.append([made.note(entry) for entry in said])) == {"ok"}
        made.finish(end)
        job = Job(TASK, "tier-under-3B")
        job.attempt = made
        set_current_job(job)
        yield made
        set_current_job(None)


def roll_back(client: redis.Redis, items: list[Append]) -> None:
    """Have Redis know no more than these of the journal."""
    client.delete(STREAM)
    for item in items:
        client.xadd(STREAM, {"d": item.payload}, id=item.entry_id)


def published(news: Any, count: int) -> list[str]:
    """The channels of so many messages, in their order."""
    heard: list[str] = []
    while len(heard) < count:
        message = news.get_message(timeout=60)
        assert message is not None, heard
        heard += [message["channel"]] if message["type"] == "message" else []
    return heard


@pytest.mark.parametrize("left", [0, 1, 3, 5])
def test_the_end_comes_first(
    producer_app: Celery, attempt: Attempt, journal: Journal, redis_client: redis.Redis, left: int
) -> None:
    """What Redis lacks of the journal is written again, and published, before the result; nothing is written twice."""
    whole = journal.read(TASK)
    if left < len(whole):
        roll_back(redis_client, attempt.items[:left])
    with closing(redis_client.pubsub()) as news:  # type: ignore[no-untyped-call]
        news.subscribe(STREAM, RESULT)
        producer_app.backend.store_result(TASK, ANSWER, states.SUCCESS, request=request())
        missing = len(whole) - left
        assert published(news, missing + 1) == [*[STREAM] * missing, RESULT]
    assert journal.read(TASK) == whole
    assert not redis_client.exists(keys.unacked(IDENTITY))


@pytest.mark.usefixtures("attempt")
def test_while_the_worker_connects_anew(producer_app: Celery, redis_url: str, redis_client: redis.Redis) -> None:
    """A worker that is about to note again what it holds notes no request whose result has just been stored."""
    job = current_job()
    assert job is not None
    note = json.dumps([message(TASK, "tier-under-3B"), "", "tier-under-3B"])
    job.held = lambda: Held("tag", note)

    class Slow(Journal):
        """The request ends while the journals of earlier ones are looked at."""

        def last_ids(self, task_ids: Sequence[str]) -> list[str]:
            producer_app.backend.store_result(TASK, ANSWER, states.SUCCESS, request=request())
            return super().last_ids(task_ids)

    options = producer_app.conf.broker_transport_options[OPTION].transport_options()
    with (
        closing(connect(redis_url)) as client,
        producer_app.connection_for_read(transport_options=options) as connection,
    ):
        slow = Slow(client)
        recovery = Recovery(slow, Publisher(slow, IDENTITY), IDENTITY, producer_app.backend.get_key_for_task)
        recovery.reconnect(connection.channel(), [job])
    assert not redis_client.exists(keys.unacked(IDENTITY), keys.unacked_index(IDENTITY))
    assert redis_client.exists(RESULT)


@pytest.mark.usefixtures("attempt")
def test_a_part_of_a_chord(producer_app: Celery, journal: Journal, redis_client: redis.Redis) -> None:
    """It is the same for a request whose message Celery acknowledges later."""
    whole = journal.read(TASK)
    redis_client.delete(STREAM)
    producer_app.backend.store_result(TASK, ANSWER, states.SUCCESS, request=request(chord={"task": "after"}))
    assert journal.read(TASK) == whole
    assert redis_client.exists(RESULT, keys.unacked(IDENTITY)) == 2


@pytest.mark.usefixtures("attempt")
def test_another_worker_has_the_request_now(producer_app: Celery, journal: Journal, redis_client: redis.Redis) -> None:
    """Redis lost the claim as well, and another worker made one: the answer is that worker's, and this one's is not stored."""
    redis_client.delete(STREAM)
    journal.claim(TASK, "other#boot")
    with pytest.raises(Reject, match="another worker") as refused:
        producer_app.backend.store_result(TASK, ANSWER, states.SUCCESS, request=request())
    assert refused.value.requeue
    assert len(journal.read(TASK)) == 1
    assert not redis_client.exists(RESULT)


@pytest.mark.usefixtures("attempt")
@pytest.mark.parametrize("key", [STREAM, keys.collected(TASK)], ids=["of another type", "deleted on purpose"])
def test_a_journal_that_is_not_written_again(producer_app: Celery, redis_client: redis.Redis, key: str) -> None:
    """The answer is stored all the same."""
    redis_client.delete(STREAM)
    redis_client.set(key, "")
    producer_app.backend.store_result(TASK, ANSWER, states.SUCCESS, request=request())
    assert producer_app.backend.get_result(TASK) == ANSWER
    assert redis_client.type(STREAM) != "stream"

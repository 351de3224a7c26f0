"""The result that producers hold: streaming, Celery's stored result behind it, and cancelling."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import uuid
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from celery import Celery
from celery.exceptions import TaskRevokedError
from celery.exceptions import TimeoutError as CeleryTimeoutError

from tasks.client.result import GenerateResult
from tasks.demo.embedded import free_port
from tasks.errors import BrokerUnavailable, EngineFailed, GenerationError, InvalidRequest, StreamTimeout
from tasks.journal.items import Append
from tasks.journal.writer import Journal
from tasks.messages.journal import End, Token
from tasks.server import keys
from tasks.server.connection import connect
from tests.support import ROOT, forget_connections, wait_until
from worker_config.celeryconfig import worker_options
from worker_config.settings import current_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis import Redis

    from tasks.client.answers.answer import Answer
    from tasks.demo.embedded import EmbeddedServer


# Celery 5.7 stores results with a command that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")


@pytest.fixture
def result(producer_app: Celery) -> GenerateResult:
    """The result of a request that no worker has seen."""
    return GenerateResult(str(uuid.uuid4()), app=producer_app)


@pytest.fixture
def journal(redis_url: str) -> Iterator[Journal]:
    """What a worker writes with."""
    with closing(connect(redis_url)) as client:
        yield Journal(client)


def answer(journal: Journal, task_id: str, *texts: str, end: bool = True) -> None:
    journal.claim(task_id, "a@here#1")
    items = [Append.of(task_id, i + 1, Token(attempt=1, index=i, ids=[i], text=text)) for i, text in enumerate(texts)]
    if end:
        items.append(
            Append.of(task_id, len(texts) + 1, End(attempt=1, index=len(texts), finish_reason="stop", usage={}))
        )
    assert set(journal.append(items)) <= {"ok", "heard"}


async def wait_for(result: GenerateResult) -> Answer:
    return await result


PRODUCER = """
from tasks import generate
kept = [generate.delay(prompt="a", model="fake:0") for _ in range(5)]
print("sent", flush=True)
input()
kept.pop()
print("ends", flush=True)
"""


def test_a_producer_ends_without_redis(redis_server: EmbeddedServer) -> None:
    """A process that holds results ends at once although Redis is gone; Celery's results would look for it for 20 s."""
    with subprocess.Popen(
        [sys.executable, "-c", PRODUCER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as producer:
        assert producer.stdin is not None
        assert producer.stdout is not None
        assert producer.stdout.readline() == "sent\n"
        redis_server.stop()
        producer.stdin.write("\n")
        producer.stdin.flush()
        assert producer.stdout.readline() == "ends\n"
        assert producer.wait(18) == 0


LEFT_BEHIND = """
from celery import group
from celery.exceptions import TimeoutError
from tasks import generate
results = [generate.delay(prompt="a", model="fake:0") for _ in range(5)]
together = group(generate.s(prompt="a", model="fake:0") for _ in range(3)).apply_async()
results[0].then(print)
for waited_for in (results[1], together):
    try:
        waited_for.get(timeout=0.2)
    except TimeoutError:
        pass
"""


def test_a_producer_ends_without_a_word(redis_server: EmbeddedServer) -> None:
    """A process that leaves results unread, waited for or not, prints nothing at its end."""
    done = subprocess.run(
        [sys.executable, "-c", LEFT_BEHIND],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60, start_new_session=True,
    )  # fmt: skip
    warnings = [line for line in done.stderr.splitlines() if "the request waits" not in line]
    assert (done.returncode, done.stdout, warnings) == (0, "", [])


class TestStream:
    def test_by_id(self, producer_app: Celery, journal: Journal) -> None:
        """The task makes a result from an id alone, and it streams: to threads and to asyncio."""
        from tasks import generate

        result = generate.AsyncResult("by-id")
        assert type(result) is GenerateResult
        answer(journal, "by-id", "Hello", " there")

        async def read() -> list[str]:
            within_a_loop = [chunk.text for chunk in result.stream(timeout=30)]  # as a notebook does
            assert [chunk.text async for chunk in result.astream(timeout=30)] == within_a_loop
            return within_a_loop

        assert [chunk.text for chunk in result.stream(timeout=30)] == ["Hello", " there", ""]
        assert asyncio.run(read()) == ["Hello", " there", ""]
        result.forget()
        assert [chunk.text for chunk in result.stream(timeout=30)] == ["Hello", " there", ""]

    def test_other_process(self, result: GenerateResult, journal: Journal) -> None:
        """Another process reads the same text by the id."""
        program = (
            "import sys; from tasks import generate\n"
            "print(''.join(chunk.text for chunk in generate.AsyncResult(sys.argv[1]).stream(timeout=60)))"
        )
        answer(journal, result.id, "Hello", " there")
        done = subprocess.run(
            [sys.executable, "-c", program, result.id],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=60, start_new_session=True,
        )  # fmt: skip
        assert (done.stdout, done.stderr) == ("Hello there\n", "")

    def test_stored_success(self, result: GenerateResult) -> None:
        """Once the journal has expired, what Celery stored comes as one chunk; ``get`` gives the same."""
        value = {
            "text": "Hello",
            "finish_reason": "length",
            "usage": {"completion_tokens": 2},
            "timing": {},
            "logprobs": None,
        }
        result.backend.store_result(result.id, value, "SUCCESS")
        (only,) = result.stream(timeout=30)
        assert (only.text, only.finish_reason, only.usage) == ("Hello", "length", {"completion_tokens": 2})
        assert result.get(timeout=30)["text"] == "Hello"

    def test_stored_failure(self, result: GenerateResult) -> None:
        """A stored error is raised with its own class."""
        result.backend.store_result(result.id, EngineFailed("three times"), "FAILURE")
        with pytest.raises(EngineFailed, match="three times"):
            list(result.stream(timeout=30))

    def test_stored_revoked(self, result: GenerateResult) -> None:
        """A request that was revoked while queued ends as cancelled, without text, though nobody ended its journal."""
        result.backend.store_result(result.id, TaskRevokedError("revoked"), "REVOKED")
        (only,) = result.stream(timeout=30)
        assert (only.text, only.finish_reason) == ("", "cancelled")

    def test_unknown(self, result: GenerateResult) -> None:
        """A request that does not exist yet is waited for, and the timeout says what Celery says."""
        with pytest.raises(StreamTimeout, match=r"no worker has claimed it .*PENDING") as caught:
            list(result.stream(idle_timeout=0.3))
        assert (caught.value.code, isinstance(caught.value, GenerationError)) == ("stream_timeout", True)

    def test_a_fork_in_the_middle(self, result: GenerateResult, journal: Journal, redis_client: Redis) -> None:
        """A child that reads on is told to begin its own stream, and its end cancels nothing: the parent reads to the end."""
        answer(journal, result.id, "a", "b", end=False)
        stream = result.stream(timeout=30, cancel_on_close=True)
        assert next(stream).text == "a"
        child = os.fork()
        if not child:
            status = 1
            try:
                list(stream)  # what had come before is given
            except InvalidRequest as error:
                status = 0 if "begun before a fork: call stream() again" in str(error) else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert not redis_client.exists(keys.cancel(result.id))
        assert next(stream).text == "b"
        stream.close()
        assert redis_client.exists(keys.cancel(result.id))

    def test_async_for(self, result: GenerateResult, journal: Journal) -> None:
        """``async for`` over ``stream()`` reads it as over ``astream()``: the loop goes on meanwhile, and its end is the same."""

        async def read() -> str:
            writing = asyncio.create_task(asyncio.to_thread(answer, journal, result.id, "a", "b"))
            text = "".join([chunk.text async for chunk in result.stream(timeout=30)])
            await writing
            return text

        assert asyncio.run(read()) == "ab"

    def test_awaited(self, result: GenerateResult, journal: Journal) -> None:
        """``await`` gives what ``get`` does, also for many at once, and raises what it raises."""
        results = [GenerateResult(f"awaited-{n}", app=result.app) for n in range(100)]

        async def main() -> list[Answer]:
            waiting = asyncio.gather(*results)
            await asyncio.to_thread(end_all)
            return await waiting

        def end_all() -> None:
            for awaited in results:
                answer(journal, awaited.id, "Hello")
                awaited.backend.store_result(awaited.id, {"text": awaited.id}, "SUCCESS")

        assert [got["text"] for got in asyncio.run(main())] == [awaited.id for awaited in results]
        result.backend.store_result(result.id, EngineFailed("three times"), "FAILURE")
        with pytest.raises(EngineFailed, match="three times"):
            asyncio.run(wait_for(result))

    def test_a_timeout_of_get(self, result: GenerateResult, journal: Journal) -> None:
        """``get(timeout=...)`` explains what is known, as ``stream`` does; whoever catches Celery's error catches it too."""
        answer(journal, result.id, "a", "b", end=False)
        for kind in (CeleryTimeoutError, StreamTimeout):
            with pytest.raises(kind, match=r"timeout=0.3 s is over: worker a@here#1 has sent 2 tokens"):
                result.get(timeout=0.3)

    def test_without_backend(self, redis_url: str, journal: Journal) -> None:
        """An application that stores no results streams all the same."""
        with Celery("shop", broker=redis_url, set_as_current=False) as app:
            result = GenerateResult("no-backend", app=app)
            with pytest.raises(StreamTimeout, match="no worker has claimed it"):
                list(result.stream(timeout=0.3))
            answer(journal, result.id, "Hello")
            assert "".join(chunk.text for chunk in result.stream(timeout=30)) == "Hello"

    def test_without_redis(self) -> None:
        """An application whose broker is not Redis is told which settings it has."""
        with (
            Celery("shop", broker="amqp://guest:secret@localhost//", set_as_current=False) as app,
            pytest.raises(BrokerUnavailable, match=r"broker_read_url='amqp://guest:\*\*\*@localhost/"),
        ):
            next(GenerateResult("x", app=app).stream())

    def test_a_status_without_a_server(self) -> None:
        """Where Redis is away, the state and the status are the same error as every other call."""
        url = f"redis://127.0.0.1:{free_port()}/0"
        with (
            Celery("shop", broker=url, backend=url, set_as_current=False) as app,
            pytest.raises(BrokerUnavailable, match=r"^request x: Redis cannot be reached"),
        ):
            GenerateResult("x", app=app).status()


class TestRevoke:
    def test_marks(self, result: GenerateResult, journal: Journal) -> None:
        """``revoke`` leaves a mark for workers that start later; only ``terminate`` aborts what runs."""
        result.revoke()
        assert journal.cancelled([result.id]) == set()
        assert journal.claim(result.id, "a@here#1").kind == "cancelled"
        result.revoke(terminate=True)
        assert journal.cancelled([result.id]) == {result.id}

    def test_leaving(self, result: GenerateResult, journal: Journal) -> None:
        """``cancel_on_close`` cancels when the reader leaves before the end, and not after it."""
        answer(journal, result.id, "Hello", end=False)
        with closing(result.stream(cancel_on_close=True)) as chunks:
            assert next(chunks).text == "Hello"
        assert journal.cancelled([result.id]) == {result.id}

        answer(journal, "whole", "Hello")
        whole = GenerateResult("whole", app=result.app)
        assert len(list(whole.stream(timeout=30, cancel_on_close=True))) == 2
        assert journal.cancelled(["whole"]) == set()

    def test_leaving_async(self, result: GenerateResult, journal: Journal) -> None:
        """The same for asyncio."""

        async def read() -> None:
            chunks = result.astream(cancel_on_close=True)
            assert (await anext(chunks)).text == "Hello"
            await chunks.aclose()

        answer(journal, result.id, "Hello", end=False)
        asyncio.run(read())
        assert journal.cancelled([result.id]) == {result.id}

    def test_mark_expires(self, result: GenerateResult, redis_client: Redis) -> None:
        """The mark is not kept for ever."""
        result.revoke(terminate=True)
        assert 0 < redis_client.ttl(keys.cancel(result.id)) <= 86_400
        wait_until(lambda: redis_client.exists(keys.cancel(result.id)))


def test_imports() -> None:
    """The result class does not load redis before it is needed."""
    program = "import sys, tasks.client.result; print(sorted({'redis', 'pydantic', 'numpy', 'mlx', 'rich'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_more_revokes_at_once_than_the_pool_has_connections(redis_url: str) -> None:
    """Celery's broadcast takes a second connection of its pool while it holds the first one; nobody waits for that."""
    shop = Celery("shop", set_as_current=False)
    shop.conf.update(worker_options(current_settings()))
    shop.conf.update(broker_pool_limit=1)
    assert shop.conf.broker_url == redis_url
    assert shop.pool.limit == 1  # which kombu sets for the whole process
    threads = [
        threading.Thread(target=GenerateResult(str(uuid.uuid4()), app=shop).revoke, daemon=True) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    forget_connections()
    assert not any(thread.is_alive() for thread in threads)
    shop.close()

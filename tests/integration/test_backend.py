"""The result backend on a real server: who subscribes when, and a result that is stored with its acknowledgement."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery, states
from celery.exceptions import Reject
from redis.exceptions import ConnectionError  # noqa: A004

from tasks.broker.channel.holding import OPTION, Holding
from tasks.broker.results import Backend
from tasks.journal.writer import Journal
from tasks.server import keys
from tasks.server.connection import connect
from tasks.server.pipeline import AutoPipeline
from tests.fleet import waiting_messages
from tests.support import wait_until
from worker_config.celeryconfig import worker_options
from worker_config.settings import current_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from tasks.demo.embedded import EmbeddedServer
    from tasks.generate import GenerateTask

# Celery 5.7 stores and reads results with commands that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning")

IDENTITY = "node#boot"
HELD, INDEX = keys.unacked(IDENTITY), keys.unacked_index(IDENTITY)


@pytest.fixture
def backend(producer_app: Celery) -> Backend:
    assert isinstance(producer_app.backend, Backend)
    return producer_app.backend


def test_threads_share_it(producer_app: Celery, backend: Backend) -> None:
    """A thread's first request costs no backend, no client and no pool of its own, and no bound keeps many threads from Redis."""
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(lambda: producer_app.backend).result() is backend
    pool = backend.client.connection_pool
    links = [pool.get_connection() for _ in range(producer_app.conf.redis_max_connections + 1)]
    for link in links:
        pool.release(link)
    backend.client.close()


@pytest.fixture
def holding(producer_app: Celery, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Holding]:
    """What makes this process a worker's, as far as results are concerned."""
    with closing(AutoPipeline(redis_url)) as scripts:
        made = Holding(IDENTITY, scripts=scripts)
        monkeypatch.setitem(producer_app.conf.broker_transport_options, OPTION, made)
        yield made


def request(task: str = "tasks.generate", chord: Any = None, chain: Any = None, errbacks: Any = None) -> Any:
    """What Celery's tracer hands over with a result."""
    return SimpleNamespace(
        id="t1",
        task=task,
        chord=chord,
        chain=chain,
        errbacks=errbacks,
        properties={"delivery_tag": "tag"},
        children=[],
        ignore_result=False,
    )


def hold(client: redis.Redis) -> None:
    client.hset(HELD, "tag", "the message")
    client.zadd(INDEX, {"tag": 1.0})


class TestProducer:
    def test_nobody_subscribes_before_asking(self, producer_app: Celery, redis_client: redis.Redis) -> None:
        """A request that was sent is not listened for; asking for its result does that, and finds what came before."""
        from tasks import generate

        result = generate.delay(prompt="x", model="fake:1")
        channel = f"celery-task-meta-{result.id}"
        assert redis_client.pubsub_numsub(channel) == [(channel, 0)]
        producer_app.backend.store_result(result.id, {"text": "early"}, states.SUCCESS)
        assert result.get(timeout=60) == {"text": "early"}

    def test_one_that_comes_later(self, producer_app: Celery, redis_client: redis.Redis) -> None:
        """A result that is stored after somebody has asked for it is heard."""
        from tasks import generate

        result, other = (generate.delay(prompt="x", model="fake:1") for _ in range(2))
        seen: list[Any] = []
        result.then(lambda answered: seen.append(answered.result))
        waiting = threading.Thread(target=other.get, kwargs={"timeout": 60})
        waiting.start()
        channels = [f"celery-task-meta-{waited_for.id}" for waited_for in (result, other)]
        wait_until(lambda: redis_client.pubsub_numsub(*channels) == [(channel, 1) for channel in channels])
        producer_app.backend.store_result(result.id, {"text": "late"}, states.SUCCESS)
        wait_until(lambda: seen == [{"text": "late"}], about="the callback, while somebody waits for another result")
        producer_app.backend.store_result(other.id, {"text": "later"}, states.SUCCESS)
        waiting.join()
        assert result.get(timeout=60) == {"text": "late"}
        assert seen == [{"text": "late"}]

    def test_then_for_one_that_has_come(self, producer_app: Celery) -> None:
        """A callback that is added after the result was stored is called, though nobody listened before."""
        from tasks import generate

        result = generate.delay(prompt="x", model="fake:1")
        producer_app.backend.store_result(result.id, {"text": "early"}, states.SUCCESS)
        seen: list[Any] = []
        result.then(lambda answered: seen.append(answered.result))
        assert seen == [{"text": "early"}]

    def test_an_application_of_other_serializers(self, producer_app: Celery, redis_client: redis.Redis) -> None:
        """Requests are sent as JSON, and JSON results are read, whatever the application's own tasks use."""
        shop = Celery("shop", include=["tasks.generate"], set_as_current=False)
        shop.conf.update(worker_options(current_settings()))
        shop.conf.update(task_serializer="pickle", result_serializer="pickle", accept_content=["pickle", "json"])
        shop.loader.import_default_modules()
        result = shop.tasks["tasks.generate"].apply_async(kwargs={"prompt": "x"}, queue="tier-under-3B")
        (message,) = waiting_messages(redis_client, "tier-under-3B")
        assert message["content-type"] == "application/json"
        producer_app.backend.store_result(result.id, {"text": "stored"}, states.SUCCESS)
        assert result.get(timeout=60) == {"text": "stored"}
        shop.backend.store_result("own", {1, 2}, states.SUCCESS)
        assert shop.AsyncResult("own").get(timeout=60) == {1, 2}

    def test_while_redis_restarts(self, producer_app: Celery, redis_server: EmbeddedServer) -> None:
        """Who asks just when Redis is away is answered once it is back."""
        from tasks import generate

        result = generate.delay(prompt="x", model="fake:1")
        redis_server.stop()
        answers: list[Any] = []
        waiting = threading.Thread(target=lambda: answers.append(result.get(timeout=60)))
        waiting.start()
        redis_server.restart()
        producer_app.backend.store_result(result.id, {"text": "stored"}, states.SUCCESS)
        waiting.join()
        assert answers == [{"text": "stored"}]

    def test_a_connection_that_is_lost_is_no_answer(
        self, producer_app: Celery, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The state of a request that runs is looked for again, as a stored one is."""
        with closing(connect(redis_url)) as client:
            Journal(client).claim("t1", "mac@lab#b1")
        backend = producer_app.backend
        look, errors = backend.client.xrevrange, [ConnectionError("lost")]

        def xrevrange(*arguments: Any, **options: Any) -> Any:
            if errors:
                raise errors.pop()
            return look(*arguments, **options)

        monkeypatch.setattr(backend.client, "xrevrange", xrevrange)
        assert producer_app.AsyncResult("t1").state == states.STARTED
        assert not errors


@pytest.mark.usefixtures("holding")
class TestWorker:
    def test_stored_and_acknowledged(self, backend: Backend, holding: Holding, redis_client: redis.Redis) -> None:
        """One script does both; Celery's own acknowledgement, which comes later, is told so."""
        hold(redis_client)
        assert holding.scripts is not None
        calls = holding.scripts.calls
        backend.store_result("t1", {"text": "hello"}, states.SUCCESS, request=request())
        assert holding.scripts.calls - calls <= 3  # two more where the server does not know the script
        stored = json.loads(redis_client.get("celery-task-meta-t1") or "{}")
        assert (stored["status"], stored["result"], stored["task_id"]) == ("SUCCESS", {"text": "hello"}, "t1")
        assert 0 < int(redis_client.ttl("celery-task-meta-t1")) <= int(backend.expires)
        assert not redis_client.exists(HELD, INDEX)
        assert holding.answered == {"tag"}

    def test_a_success_stands(self, backend: Backend, redis_client: redis.Redis) -> None:
        """What a second delivery ends with does not take its place, but its message is done with too."""
        backend.store_result("t1", {"text": "first"}, states.SUCCESS, request=request())
        hold(redis_client)
        backend.store_result("t1", ValueError("second"), states.FAILURE, request=request())
        assert json.loads(redis_client.get("celery-task-meta-t1") or "{}")["result"] == {"text": "first"}
        assert not redis_client.exists(HELD)

    @pytest.mark.parametrize("state", ["PENDING", "STARTED", "SUCCESS", "FAILURE"])
    def test_the_next_try_was_quicker(
        self, backend: Backend, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch, state: str
    ) -> None:
        """Celery sends the next try before it stores RETRY: what that try has ended with meanwhile stands."""
        shops = request("shop.charge")
        look = backend._get_task_meta_for

        def look_too_early(task_id: str) -> Any:
            found = look(task_id)
            monkeypatch.undo()
            if state != "PENDING":
                backend.store_result("t1", ValueError("paid") if state == "FAILURE" else "paid", state, request=shops)
            return found

        monkeypatch.setattr(backend, "_get_task_meta_for", look_too_early)
        backend.mark_as_retry("t1", ValueError("again"), request=shops)
        ended = state in states.READY_STATES
        assert json.loads(redis_client.get("celery-task-meta-t1") or "{}")["status"] == (state if ended else "RETRY")
        assert 0 < int(redis_client.ttl("celery-task-meta-t1")) <= int(backend.expires)

    @pytest.mark.parametrize("given", [{}, {"chain": [{"task": "shop.bill"}]}])
    def test_what_cannot_be_stored(
        self, backend: Backend, holding: Holding, redis_client: redis.Redis, given: Any
    ) -> None:
        """The message is not acknowledged: it goes back to its queue, and whoever takes it next stores the result."""
        hold(redis_client)
        redis_client.lpush("celery-task-meta-t1", "of another program")
        with pytest.raises(Reject, match="cannot be stored") as refused:
            backend.store_result("t1", {"text": "hello"}, states.SUCCESS, request=request(**given))
        assert refused.value.requeue
        assert redis_client.hexists(HELD, "tag")
        assert not holding.answered

    def test_a_failure_does_not(self, backend: Backend, redis_client: redis.Redis) -> None:
        """An error gives way to what comes after it, as with Celery."""
        backend.store_result("t1", ValueError("first"), states.FAILURE, request=request())
        backend.store_result("t1", {"text": "second"}, states.SUCCESS, request=request())
        assert json.loads(redis_client.get("celery-task-meta-t1") or "{}")["status"] == "SUCCESS"

    @pytest.mark.parametrize("given", [request(task="billing.charge"), request(chord={"task": "after"})])
    def test_all_else_is_celerys(
        self, backend: Backend, holding: Holding, redis_client: redis.Redis, given: Any
    ) -> None:
        """Other tasks, and parts of a chord, which are counted after they are stored, are acknowledged by Celery."""
        hold(redis_client)
        backend.store_result("t1", {"text": "hello"}, states.SUCCESS, request=given)
        assert redis_client.exists("celery-task-meta-t1")
        assert redis_client.hexists(HELD, "tag")
        assert holding.answered == set()

    @pytest.mark.parametrize("given", [request(chain=[{"task": "next"}]), request(errbacks=[{"task": "sorry"}])])
    def test_a_failure_that_others_are_told_of(self, backend: Backend, redis_client: redis.Redis, given: Any) -> None:
        """Its message is held until Celery has told the rest of the chain, and the errbacks, which comes after the result."""
        hold(redis_client)
        backend.store_result("t1", ValueError("no"), states.FAILURE, request=given)
        assert redis_client.hexists(HELD, "tag")
        backend.store_result("t2", {"text": "hello"}, states.SUCCESS, request=given)
        assert not redis_client.exists(HELD)

    def test_results_of_their_own(self, backend: Backend, redis_client: redis.Redis, redis_url: str) -> None:
        """Where results are in another database than messages, the two are written one by one."""
        hold(redis_client)
        other = Backend(app=backend.app, url=redis_url.removesuffix("/0") + "/1")
        other.store_result("t1", {"text": "hello"}, states.SUCCESS, request=request())
        assert other.get_result("t1") == {"text": "hello"}
        assert redis_client.hexists(HELD, "tag")
        assert not redis_client.exists("celery-task-meta-t1")
        other.client.close()


def test_what_is_not_the_end(backend: Backend, generate: GenerateTask, redis_client: redis.Redis) -> None:
    """A state on the way is stored as ever."""
    backend.store_result("t1", {"pid": 1}, states.STARTED, request=request())
    assert backend.get_state("t1") == states.STARTED
    assert generate.backend is backend

"""Waiting for results: whatever came before, comes while, or after the caller asks, nothing waits for ever."""

from __future__ import annotations

import asyncio
import gc
import json
import multiprocessing
import pickle
import threading
import uuid
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from celery import chain, chord, states
from celery.backends.base import DisabledBackend
from celery.exceptions import TaskRevokedError
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import GroupResult, ResultSet

from tasks.client.result import GenerateResult
from tasks.errors import EngineFailed, StreamTimeout, UnknownRequest
from tasks.server import keys
from tests.fleet import hold, message, waiting_messages
from tests.support import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery import Celery
    from redis import Redis

# Celery 5.7 stores and reads results with commands that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning")

WAIT_S = 60.0


def new_ids(count: int) -> list[str]:
    return [str(uuid.uuid4()) for _ in range(count)]


def store(app: Celery, task_ids: Sequence[str]) -> None:
    """What a worker stores at a request's end: here its own id."""
    for task_id in task_ids:
        app.backend.store_result(task_id, {"text": task_id}, states.SUCCESS)


def gather(app: Celery, *members: Any) -> GroupResult:
    """A group's result, as Celery makes it once all members are sent: quick ones have ended by then."""
    from tasks import generate

    found = [generate.AsyncResult(member) if isinstance(member, str) else member for member in members]
    return GroupResult(str(uuid.uuid4()), found, app=app)


def generate_result(task_id: str) -> GenerateResult:
    from tasks import generate

    return generate.AsyncResult(task_id)


async def await_(result: GenerateResult) -> Any:
    return await result


def texts(task_ids: Sequence[str]) -> list[dict[str, str]]:
    return [{"text": task_id} for task_id in task_ids]


@pytest.mark.parametrize("count", [1, 2, 50])
@pytest.mark.parametrize("method", ["get", "join", "join_native"])
def test_a_group_that_has_ended(producer_app: Celery, count: int, method: str) -> None:
    """Results that were stored before the group was there are found, in the group's order."""
    ids = new_ids(count)
    store(producer_app, ids)
    assert getattr(gather(producer_app, *ids), method)(timeout=WAIT_S) == texts(ids)


def test_half_of_it_has_ended(producer_app: Celery) -> None:
    """The rest is heard of when it comes."""
    ids = new_ids(10)
    store(producer_app, ids[::2])
    group = gather(producer_app, *ids)
    later = threading.Timer(0.2, store, (producer_app, ids[1::2]))
    later.start()
    assert group.get(timeout=WAIT_S) == texts(ids)
    later.join()


def test_groups_in_a_group(producer_app: Celery) -> None:
    """The members of inner groups are looked for under their own ids: nothing is stored under a group's."""
    first, second, last = new_ids(3), new_ids(2), new_ids(1)
    store(producer_app, first + second + last)
    outer = gather(producer_app, gather(producer_app, *first), gather(producer_app, *second), *last)
    assert outer.get(timeout=WAIT_S) == [texts(first), texts(second), *texts(last)]


def test_restored(producer_app: Celery) -> None:
    """A group that was saved is waited for by another process as by its own."""
    ids = new_ids(5)
    saved = gather(producer_app, *ids)
    saved.save()
    store(producer_app, ids)
    assert GroupResult.restore(saved.id, app=producer_app).get(timeout=WAIT_S) == texts(ids)


def test_a_set(producer_app: Celery) -> None:
    """Results that are gathered by hand are waited for like a group."""
    from tasks import generate

    ids = new_ids(4)
    store(producer_app, ids)
    gathered = ResultSet([generate.AsyncResult(task_id) for task_id in ids], app=producer_app)
    assert gathered.get(timeout=WAIT_S) == texts(ids)


def test_many_threads_wait_for_the_same(producer_app: Celery) -> None:
    """Eight threads that wait for one group's members, some of them for the same objects, all get them."""
    ids = new_ids(30)
    shared = gather(producer_app, *ids)
    groups = [shared, shared, *(gather(producer_app, *ids) for _ in range(6))]
    with ThreadPoolExecutor(8) as threads:
        waits = [threads.submit(group.get, timeout=WAIT_S) for group in groups]
        for task_id in ids:
            store(producer_app, [task_id])
        assert [wait.result() for wait in waits] == [texts(ids)] * 8


def test_each_caller_raises_an_error_of_its_own(producer_app: Celery) -> None:
    """A stored error is raised on two threads as two objects: Python writes into one that is raised."""
    from tasks import generate

    (task_id,) = new_ids(1)
    producer_app.backend.store_result(task_id, EngineFailed("three times"), states.FAILURE)
    with ThreadPoolExecutor(2) as threads:
        waits = [threads.submit(generate.AsyncResult(task_id).get, timeout=WAIT_S) for _ in range(2)]
        first, second = (wait.exception() for wait in waits)
    assert isinstance(first, EngineFailed)
    assert isinstance(second, EngineFailed)
    assert first is not second


def test_a_message_that_was_lost(producer_app: Celery, redis_client: Redis) -> None:
    """A result that is stored and not announced, as over a connection that died, is found by looking again."""
    from tasks import generate

    (task_id,) = new_ids(1)
    key = f"celery-task-meta-{task_id}"
    with ThreadPoolExecutor(1) as threads:
        wait = threads.submit(generate.AsyncResult(task_id).get, timeout=WAIT_S)
        wait_until(lambda: redis_client.pubsub_numsub(key) == [(key, 1)])
        stored: dict[str, Any] = {
            "task_id": task_id,
            "status": "SUCCESS",
            "result": {"text": "quiet"},
            "traceback": None,
            "children": [],
        }
        redis_client.set(key, json.dumps(stored))
        assert wait.result() == {"text": "quiet"}


def test_no_time_at_all(producer_app: Celery) -> None:
    """``timeout=0`` asks without waiting: what is stored is given, and nothing else."""
    from tasks import generate

    ids = new_ids(2)
    store(producer_app, ids[:1])
    assert generate.AsyncResult(ids[0]).get(timeout=0) == {"text": ids[0]}
    with pytest.raises(CeleryTimeoutError, match="no queue, worker or result"):
        generate.AsyncResult(ids[1]).get(timeout=0)


def test_states_on_the_way(producer_app: Celery, redis_client: Redis) -> None:
    """``on_message`` is told of each state that is stored while somebody waits."""
    from tasks import generate

    (task_id,) = new_ids(1)
    key = f"celery-task-meta-{task_id}"
    states_seen: list[str] = []
    with ThreadPoolExecutor(1) as threads:
        wait = threads.submit(
            generate.AsyncResult(task_id).get,
            timeout=WAIT_S,
            on_message=lambda meta: states_seen.append(meta["status"]),
        )
        wait_until(lambda: redis_client.pubsub_numsub(key) == [(key, 1)])
        producer_app.backend.store_result(task_id, {"step": 1}, "PROGRESS")
        wait_until(lambda: states_seen == ["PROGRESS"])
        store(producer_app, [task_id])
        wait.result()
    assert states_seen == ["PROGRESS", "SUCCESS"]


def test_a_result_that_nobody_stores(producer_app: Celery) -> None:
    """A member with ``ignore_result`` counts as ended: nothing will ever come of it."""
    ids = new_ids(2)
    store(producer_app, ids[:1])
    group = gather(producer_app, *ids)
    group.results[1].ignored = True
    assert group.get(timeout=WAIT_S) == [*texts(ids[:1]), None]


def test_nothing_is_kept_of_a_wait_in_vain(producer_app: Celery, redis_client: Redis) -> None:
    """A group that nobody waits for, and a wait that was given up, leave neither subscription nor object behind."""
    from tasks import generate

    (task_id,) = new_ids(1)
    group = gather(producer_app, *new_ids(3))
    result = generate.AsyncResult(task_id)
    with pytest.raises(CeleryTimeoutError):
        result.get(timeout=0.1)
    group_left, result_left = weakref.ref(group.results[0]), weakref.ref(result)
    del group, result
    # The thread that reads may be at it just now.
    wait_until(lambda: gc.collect() >= 0 and (group_left(), result_left()) == (None, None))
    wait_until(lambda: not redis_client.pubsub_channels("celery-task-meta-*"))


def test_after_a_fork(producer_app: Celery) -> None:
    """A child waits for what its parent sent, also where the parent waits for it too."""
    from tasks import generate

    (task_id,) = new_ids(1)
    result = generate.AsyncResult(task_id)
    with ThreadPoolExecutor(1) as threads:
        wait = threads.submit(result.get, timeout=WAIT_S)
        context = multiprocessing.get_context("fork")
        answers: multiprocessing.SimpleQueue[Any] = context.SimpleQueue()
        child = context.Process(target=lambda: answers.put(result.get(timeout=WAIT_S)))
        child.start()
        store(producer_app, [task_id])
        assert wait.result() == {"text": task_id}
    child.join(WAIT_S)
    assert child.exitcode == 0
    assert answers.get() == {"text": task_id}


def test_how_far_without_a_backend(producer_app: Celery, redis_client: Redis) -> None:
    """An application that stores no results sees by the journal and the ledger how far a request has come."""
    result = GenerateResult("x", backend=DisabledBackend(app=producer_app), app=producer_app)
    assert result.status().state == "unknown"
    redis_client.lpush("tier-under-3B", json.dumps(message("x", "tier-under-3B")))
    redis_client.hset(keys.LEDGER, "x", json.dumps({"at": 5.0, "queue": "tier-under-3B", "message": "{}"}))
    assert result.status().state == "queued"


def test_a_result_in_a_pickle(producer_app: Celery) -> None:
    """It comes back with its application, on a thread where that is not the current one, as in another process."""
    from tasks import generate

    (task_id,) = new_ids(1)
    store(producer_app, [task_id])
    text = pickle.dumps(generate.AsyncResult(task_id))
    with ThreadPoolExecutor(1) as threads:
        found = threads.submit(pickle.loads, text).result()
    assert found.app is producer_app
    assert (found.get(timeout=WAIT_S), [chunk.text for chunk in found.stream(timeout=WAIT_S)]) == (
        {"text": task_id},
        [task_id],
    )


def test_a_link_that_is_never_sent(producer_app: Celery) -> None:
    """A chain's first link was revoked: Celery stores nothing for the others, whose readers hear of it all the same."""
    first, second, third = new_ids(3)
    parent = GenerateResult(second, app=producer_app, parent=generate_result(first))
    last = GenerateResult(third, app=producer_app, parent=parent)
    producer_app.backend.mark_as_revoked(first, "revoked")
    for link in (parent, last):
        assert [chunk.finish_reason for chunk in link.stream(timeout=WAIT_S)] == ["cancelled"]
    with pytest.raises(TaskRevokedError):
        last.get(timeout=WAIT_S)


def test_a_revoke_that_waits_for_replies(producer_app: Celery) -> None:
    """It ends where no worker replies, or none any more: of one request, and of a group."""
    first, second = new_ids(2)
    assert generate_result(first).revoke(wait=True) == []
    gather(producer_app, first, second).revoke(wait=True)


class Impatient(GenerateResult):
    """Looks for a request that nobody knows for a moment only."""

    unknown_after_s = 0.2


class TestUnknown:
    def test_nobody_knows_it(self, producer_app: Celery) -> None:
        """An id of which Redis knows nothing is called so, by every way to wait for it."""
        result = Impatient("typo", app=producer_app)
        message = "request typo: unknown: .*CELERY_MLX_UNKNOWN_AFTER_S=0"
        for wait in (result.get, lambda: list(result.stream()), lambda: asyncio.run(await_(result))):
            with pytest.raises(UnknownRequest, match=message) as caught:
                wait()
            assert caught.value.code == "unknown_request"

    def test_a_member_that_nobody_knows(self, producer_app: Celery) -> None:
        """So is a member of a group."""
        ids = new_ids(2)
        store(producer_app, ids)
        members = [*map(generate_result, ids), Impatient("typo", app=producer_app)]
        with pytest.raises(UnknownRequest, match="typo"):
            GroupResult("group", members, app=producer_app).get()

    def test_one_that_waits_in_its_queue(self, producer_app: Celery) -> None:
        """A request that was sent is known, however long it waits."""
        from tasks import generate

        result = Impatient(generate.delay(prompt="x", model="fake:1").id, app=producer_app)
        for wait in (lambda: result.get(timeout=1.0), lambda: list(result.stream(timeout=1.0))):
            with pytest.raises(StreamTimeout, match="no worker has claimed it"):
                wait()

    def test_a_reader_that_comes_first(self, producer_app: Celery) -> None:
        """With 0 a reader waits for the producer."""
        result = Impatient("early", app=producer_app)
        result.unknown_after_s = 0.0
        with ThreadPoolExecutor(2) as threads:
            waits = [threads.submit(result.get, timeout=WAIT_S), threads.submit(list, result.stream(timeout=WAIT_S))]
            with pytest.raises(UnknownRequest):
                Impatient("early", app=producer_app).get()
            store(producer_app, ["early"])
            assert waits[0].result() == {"text": "early"}
            assert waits[1].result()[0].text == "early"

    def test_the_next_link_of_a_chain(self, producer_app: Celery) -> None:
        """It is sent by a worker once the link before it has ended: until then nobody has to know it."""
        from tasks import generate

        first = generate.delay(prompt="x", model="fake:1")
        second = Impatient("second", app=producer_app, parent=first)
        still_waits(second)
        store(producer_app, [first.id])
        for wait in (second.get, lambda: list(second.stream())):
            with pytest.raises(UnknownRequest):
                wait()

    @pytest.mark.parametrize("shape", ["chain", "chord"])
    def test_what_comes_before_is_lost(self, producer_app: Celery, redis_client: Redis, shape: str) -> None:
        """Nothing follows a request that Redis has lost: whoever sent it sends it again, once; then its loss is said."""
        from tasks import generate

        sent = [generate.delay(prompt=f"{n}", model="fake:1") for n in range(3)]
        first, *header = (Impatient(result.id, app=producer_app) for result in sent)
        before = first if shape == "chain" else GroupResult("header", header, app=producer_app, parent=first)
        last = Impatient("last", app=producer_app, parent=before)
        lost = sent[0 if shape == "chain" else 2].id
        redis_client.flushdb()
        if shape == "chord":
            store(producer_app, [first.id, header[0].id])

        def is_sent_again() -> bool:
            still_waits(last)
            return bool(redis_client.hexists(keys.LEDGER, lost))

        wait_until(is_sent_again)  # on a busy machine the time of a wait may be over before it has looked twice
        redis_client.delete(keys.LEDGER, "tier-under-3B")
        for wait, said in ((last.get, lost), (lambda: list(last.stream()), "last")):
            with pytest.raises(UnknownRequest, match=f"request {said}: (unknown|Redis has lost it)"):
                wait()

    def test_a_message_without_an_entry_in_the_ledger(self, producer_app: Celery, redis_client: Redis) -> None:
        """A request of a plain Celery producer is known by its message alone, while it waits and while a worker holds it."""
        other = message("foreign", "tier-under-3B")
        redis_client.lpush("tier-under-3B", json.dumps(other))
        still_waits(Impatient("foreign", app=producer_app))
        redis_client.delete("tier-under-3B")
        redis_client.sadd(keys.OWNERS, "node#boot")
        hold(redis_client, "node#boot", [other])
        still_waits(Impatient("foreign", app=producer_app))

    @pytest.mark.parametrize("shape", ["chain", "chord"])
    def test_what_a_message_leads_to(self, producer_app: Celery, redis_client: Redis, shape: str) -> None:
        """The id of a chain's last link, or of a chord's body, is known to whoever has it alone, though it was not sent yet."""
        from tasks import generate

        parts = [generate.s(prompt=f"{n}", model="fake:1") for n in range(2)]
        last = generate.s(prompt="{previous}", model="fake:1")
        sent = chain(*parts, last).apply_async() if shape == "chain" else chord(parts)(last)
        still_waits(Impatient(sent.id, app=producer_app))
        messages = waiting_messages(redis_client, "tier-under-3B")
        redis_client.delete("tier-under-3B", keys.LEDGER)
        redis_client.sadd(keys.OWNERS, "node#boot")
        hold(redis_client, "node#boot", messages)
        still_waits(Impatient(sent.id, app=producer_app))
        redis_client.delete(keys.unacked("node#boot"))
        with pytest.raises(UnknownRequest):
            Impatient(sent.id, app=producer_app).get()


def still_waits(result: GenerateResult) -> None:
    for wait in (lambda: result.get(timeout=1.0), lambda: list(result.stream(timeout=1.0))):
        with pytest.raises(StreamTimeout):
            wait()

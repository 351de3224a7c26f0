"""Waiting for results: whatever came before, comes while, or after the caller asks, nothing waits for ever."""

from __future__ import annotations

import threading
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from celery import states
from celery.result import GroupResult, ResultSet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery import Celery

# Celery 5.7 stores and reads results with commands that redis-py 8 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated:DeprecationWarning")

WAIT_S = 20.0


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

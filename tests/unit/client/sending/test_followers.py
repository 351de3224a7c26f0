"""The queues of what follows a request are named by the producer, whose application knows them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from celery import Celery, Signature, chain, chord, group

from tasks.client.sending.followers import name_destinations, require_signatures
from tasks.errors import InvalidRequest
from worker_config.celeryconfig import celery_options
from worker_config.settings import Settings

shop = Celery("shop", set_as_current=False, changes={"task_default_queue": "shop"})
shop.conf.task_routes = {"print": {"queue": "printers"}}


@shop.task(name="word")
def word(text: str) -> str:
    return text


@shop.task(name="print")
def write(text: str) -> str:
    return text


@pytest.fixture
def app() -> Celery:
    """The application of the request, which knows none of these tasks."""
    return Celery("fleet", set_as_current=False)


@pytest.mark.parametrize(
    ("follower", "queue"),
    [(word.s(), "shop"), (write.s(), "printers"), (word.s().set(queue="mine"), "mine")],
    ids=["default", "routed", "named"],
)
def test_a_task_goes_where_its_application_sends_it(app: Celery, follower: Any, queue: str) -> None:
    """By its application's default queue and its routes; a name that is there stays."""
    for place in ("link", "link_error", "chain", "chord"):
        signature = follower.clone()
        name_destinations(app, {place: [signature] if place != "chord" else signature})
        assert signature.options["queue"] == queue


def test_what_is_within(app: Celery) -> None:
    """In groups, chords and chains, and what follows those that follow; also once they are plain data."""
    body, within = word.s(), chain(write.s(), word.s())
    first = write.s().on_error(word.s())
    name_destinations(app, {"chain": [first, chord(group(word.s(), within), body), group(write.s())]})
    found = [first, first.options["link_error"][0], body, *within.tasks]
    assert [task.options["queue"] for task in found] == ["printers", "shop", "shop", "printers", "shop"]
    plain: dict[str, Any] = {"task": "word", "args": [], "kwargs": {}, "options": {}}
    name_destinations(shop, {"chain": [plain]})
    assert plain["options"] == {"queue": "shop"}


def test_what_is_left_alone(app: Celery) -> None:
    """The queues of requests, which have routes of their own, and tasks that this process does not know."""
    request: dict[str, Any] = {"task": "tasks.generate", "args": [], "kwargs": {}, "options": {}}
    other = {**request, "task": "other", "options": {}}
    name_destinations(app, {"link": [request], "chain": None, "task_id": "x"}, other, None)
    assert request["options"] == other["options"] == {}


def test_a_request_means_its_producer_s_model(app: Celery) -> None:
    """A follower that names none has this application's default, also within a group or a chord; a name that is there stays."""
    app.conf.update(celery_options(replace(Settings(), default_model="house-7b")))
    ask, embed = Signature("tasks.generate", app=app), Signature("tasks.embed", app=app)
    named = Signature("tasks.generate", kwargs={"model": "mine"}, app=app)
    name_destinations(app, {"link": [ask], "chord": dict(embed), "chain": [group(named, Signature("word", app=shop))]})
    assert ask.kwargs == {"model": "house-7b"}
    assert named.kwargs == {"model": "mine"}
    body: dict[str, Any] = {"task": "tasks.generate", "kwargs": None}
    name_destinations(app, {"chord": body})
    assert body["kwargs"] == {"model": "house-7b"}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (word, "use word.s(...)"),
        ([write.s(), write], "use print.s(...)"),
        (print, "give a signature"),
        (shop.AsyncResult("x"), "link: AsyncResult is not a signature: give a signature"),
        ({}, "give a sig"),
    ],
    ids=["task", "task-in-a-list", "function", "result", "nothing-in-it"],
)
def test_what_is_no_signature(given: Any, said: str) -> None:
    """A task in the place of its signature is named, with what to write."""
    require_signatures(link=[word.s(), dict(write.s())], link_error=None)
    with pytest.raises(InvalidRequest, match=r"^link: .* is not a signature: ") as caught:
        require_signatures(link_error=word.s(), link=given)
    assert said in str(caught.value)

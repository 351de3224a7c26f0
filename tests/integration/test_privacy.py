"""Prompts and answers are between a producer and its readers: no log line, event or monitor has a word of them."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from celery import chain

from tasks.engine.fake import fake_text
from tasks.errors import InvalidRequest
from tests.support import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery import Celery

    from tasks.generate import GenerateTask
    from tests.conftest import StartWorker
    from tests.support import Worker

pytestmark = pytest.mark.xdist_group("privacy")
WAIT_S = 60.0
MODEL = "fake:5"
SECRET = "geheimnis"


@pytest.fixture(scope="module")
def node(shared_worker: StartWorker) -> Worker:
    """A worker that sends events and logs all it can."""
    return shared_worker("-c", "2", "-Q", "tier-under-3B", "-E", "-l", "DEBUG", env={"CELERY_MLX_MODELS": MODEL})


@pytest.fixture(scope="module")
def events(shared_app: Celery) -> Iterator[list[dict[str, Any]]]:
    """Every event of the fleet, from now on."""
    seen: list[dict[str, Any]] = []
    connection = shared_app.connection_for_read()
    receiver = shared_app.events.Receiver(connection, handlers={"*": seen.append})
    thread = threading.Thread(target=lambda: receiver.capture(limit=None, timeout=None, wakeup=False), daemon=True)
    thread.start()
    wait_until(lambda: connection.connected)
    yield seen
    receiver.should_stop = True
    thread.join(10)
    connection.close()


@pytest.fixture(scope="module")
def generate(shared_app: Celery) -> GenerateTask:
    from tasks import generate

    return generate


def assert_private(text: str, answers: list[str] | None = None) -> None:
    """Neither the prompt nor three words of an answer in a row are in this text."""
    assert SECRET not in text
    for answer in answers or []:
        words = answer.split()
        assert not any(" ".join(words[at : at + 3]) in text for at in range(len(words) - 2))


def test_log_and_events(generate: GenerateTask, node: Worker, events: list[dict[str, Any]]) -> None:
    """Requests of every kind that succeed, fail, are cancelled or refused leave no word of theirs behind."""
    secret: dict[str, Any] = {"model": MODEL, "max_tokens": 10}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": f"my {SECRET}"},
        {"role": "user", "content": [{"type": "text", "text": SECRET}]},
    ]
    answers = [
        generate.delay(prompt=f"{SECRET} one", **secret).get(timeout=WAIT_S)["text"],
        generate.delay(messages=messages, **secret).get(timeout=WAIT_S)["text"],
    ]
    link = generate.s(prompt=f"{SECRET} {{previous}}", **secret)
    chained = chain(generate.s(prompt=f"{SECRET} two", **secret), link).delay()
    answers += [chained.get(timeout=WAIT_S)["text"], chained.parent.get(timeout=WAIT_S)["text"]]

    def send(**values: Any) -> Any:
        return generate.app.send_task("tasks.generate", kwargs={**secret, **values}, queue="tier-under-3B")

    assert send(prompt=f"{SECRET} raw").get(timeout=WAIT_S)["text"] == fake_text(f"{SECRET} raw", None, 10)
    for bad in ({"prompt": f"!fail {SECRET}"}, {"messages": SECRET}, {"messages": [SECRET]}, {"prompt": {"a": SECRET}}):
        with pytest.raises(InvalidRequest):
            send(**bad).get(timeout=WAIT_S)
    cancelled = generate.delay(prompt=f"{SECRET} three", model=MODEL, max_tokens=5000)
    next(iter(cancelled.stream(timeout=WAIT_S)))
    cancelled.revoke(terminate=True)
    text = "".join(chunk.text for chunk in cancelled.stream(timeout=WAIT_S))
    wait_until(lambda: any(event["type"] == "task-revoked" and event["uuid"] == cancelled.id for event in list(events)))

    assert_private(node.log(), [*answers, text])
    said = json.dumps(events, ensure_ascii=False, default=str)
    assert_private(said, [*answers, text])
    types = {event["type"] for event in events}
    assert types >= {"task-received", "task-started", "task-succeeded", "task-failed", "task-revoked"}
    received = [event for event in events if event["type"] == "task-received"]
    assert {event["args"] for event in received} == {"()"}
    assert f"{{model='{MODEL}', max_tokens=10, prompt=<13 characters>}}" in {event["kwargs"] for event in received}
    succeeded = [event for event in events if event["type"] == "task-succeeded"]
    assert {event["result"] for event in succeeded} == {f"<10 tokens of {MODEL}, finish_reason=length>"}


def test_inspect(generate: GenerateTask, shared_app: Celery, node: Worker) -> None:
    """What runs, or is asked for by its id, shows as its model and lengths."""
    running = generate.delay(prompt=f"{SECRET} four", model=MODEL, max_tokens=5000)
    next(iter(running.stream(timeout=WAIT_S)))
    inspect = shared_app.control.inspect(destination=[node.node], timeout=WAIT_S)
    try:
        shown = [
            inspect.active(),
            inspect.active(safe=True),
            inspect.reserved(),
            inspect.scheduled(),
            inspect.query_task(running.id),
        ]
    finally:
        running.revoke(terminate=True)
    assert_private(json.dumps(shown, ensure_ascii=False, default=str))
    (active,) = shown[0][node.node]
    assert active["kwargs"] == f"{{model='{MODEL}', prompt=<14 characters>, max_tokens=5000}}"


def test_a_worker_may_show_them(generate: GenerateTask, shared_app: Celery, shared_worker: StartWorker) -> None:
    """Who sets ``CELERY_MLX_SHOW_PROMPTS`` on a worker sees the prompts there."""
    model = "fake:5@3-7B"
    node = shared_worker("-Q", "tier-3-7B", env={"CELERY_MLX_SHOW_PROMPTS": "1"})
    running = generate.delay(prompt=f"{SECRET} six", model=model, max_tokens=5000)
    next(iter(running.stream(timeout=WAIT_S)))
    try:
        (active,) = shared_app.control.inspect(destination=[node.node], timeout=WAIT_S).active()[node.node]
    finally:
        running.revoke(terminate=True)
    assert active["kwargs"]["prompt"] == f"{SECRET} six"

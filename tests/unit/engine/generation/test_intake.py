"""From a worker's messages to requests."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from tasks.engine.fake import FakeRunner
from tasks.engine.generation.intake import Intake, preparer
from tasks.engine.generation.sequence import Request
from tasks.engine.text.length import LONG_CHARACTERS
from tasks.messages.engine import Abort, EngineConfig, Preparing, Submit
from tests.support import wait_until

if TYPE_CHECKING:
    from tasks.messages.engine import Work


LONG = "x" * LONG_CHARACTERS
CALL = {"type": "function", "function": {"name": "write", "arguments": {"files": [{"text": LONG}]}}}
ASKED = {"role": "user", "content": "Write."}


@pytest.mark.parametrize(
    ("prompt", "messages"),
    [
        (f"Read {LONG}", None),
        (None, [{"role": "user", "content": f"Read {LONG}"}]),
        (None, [ASKED, {"role": "assistant", "content": None, "tool_calls": [CALL]}]),
        (None, [ASKED, {"role": "assistant", "content": None, "reasoning_content": LONG}]),
    ],
    ids=["prompt", "content", "arguments of a call", "thought"],
)
def test_a_long_prompt_holds_up_no_short_ones(prompt: str | None, messages: list[dict[str, Any]] | None) -> None:
    """While one is prepared, those that came behind it are, and are handed over; it follows when it is done."""
    prepare, go_on = preparer(FakeRunner(EngineConfig(model="fake:0"), lambda: None)), threading.Event()

    def slowly(uid: int, work: Work) -> Request:
        assert work.task_id != "long" or go_on.wait(60)
        return prepare(uid, work)

    intake: Intake[Request] = Intake()
    intake.start(slowly)
    intake.receive(Submit(task_id="long", messages=messages, prompt=prompt, max_tokens=1))
    for name in ("one", "other"):
        intake.receive(Submit(task_id=name, messages=None, prompt="short", max_tokens=1))
    came: list[str] = []

    def have_come(count: int) -> bool:
        came.extend(item.task_id for item in intake.collect() if isinstance(item, Request))
        return len(came) >= count

    wait_until(lambda: have_come(2))
    assert came == ["one", "other"]
    go_on.set()
    wait_until(lambda: have_come(3))
    assert came == ["one", "other", "long"]


def test_an_idle_engine_prepares_the_first_short_request_itself() -> None:
    """On its own thread; those that come meanwhile, and long ones, are prepared beside it."""
    threads: dict[str, str] = {}
    prepare = preparer(FakeRunner(EngineConfig(model="fake:0"), lambda: None))

    def noted(uid: int, work: Work) -> Request:
        threads[work.task_id] = threading.current_thread().name
        if work.task_id == "first":
            intake.receive(Submit(task_id="second", messages=None, prompt="short", max_tokens=1))
        return prepare(uid, work)

    intake: Intake[Request] = Intake()
    intake.start(noted)
    collected: list[object] = []
    idle = threading.Thread(target=lambda: collected.extend(intake.collect(0.0)), name="stepper")
    idle.start()
    wait_until(lambda: intake._is_idle)
    intake.receive(Submit(task_id="first", messages=None, prompt="short", max_tokens=1))
    idle.join(30)
    wait_until(lambda: len(threads) == 2)
    assert threads == {"first": "stepper", "second": "intake"}


def test_what_may_have_killed_an_engine_is_prepared_apart() -> None:
    """On the stepping thread, once it may join those that run, with a word to the worker before and after."""
    happened: list[object] = []
    prepare = preparer(FakeRunner(EngineConfig(model="fake:0"), lambda: None))

    def noted(uid: int, work: Work) -> Request:
        happened.append((work.task_id, threading.current_thread().name))
        return prepare(uid, work)

    intake: Intake[Request] = Intake()
    intake.start(noted, happened.append)
    intake.receive(Submit(task_id="suspect", messages=None, prompt="a", max_tokens=1, isolate="suspects", again=True))
    intake.receive(Submit(task_id="innocent", messages=None, prompt="b", max_tokens=1))
    wait_until(lambda: intake.has_ready)
    intake.prepare_apart(lambda isolate: isolate == "alone")
    assert happened == [("innocent", "intake")]
    assert intake.apart_waits_s > 0
    intake.prepare_apart(lambda isolate: isolate == "suspects")
    assert happened[1:] == [
        Preparing("suspect", done=False),
        ("suspect", threading.current_thread().name),
        Preparing("suspect", done=True),
    ]
    assert intake.apart_waits_s == 0
    assert [item.task_id for item in intake.collect() if isinstance(item, Request)] == ["innocent", "suspect"]


def test_an_abort_of_what_is_kept_apart() -> None:
    """It is answered although nothing may be prepared now: the request is prepared like any other, and ends."""
    intake: Intake[Request] = Intake()
    intake.start(preparer(FakeRunner(EngineConfig(model="fake:0"), lambda: None)))
    intake.receive(Submit(task_id="suspect", messages=None, prompt="a", max_tokens=1, isolate="alone"))
    intake.receive(Abort("suspect"))
    collected: list[object] = []

    def has_ended() -> bool:
        collected.extend(intake.collect())
        return len(collected) == 2

    wait_until(has_ended)
    assert isinstance(collected[0], Request)
    assert collected[1] == Abort("suspect")
    assert intake.apart_waits_s == 0

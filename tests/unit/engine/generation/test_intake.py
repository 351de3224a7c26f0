"""From a worker's messages to requests."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from tasks.engine.fake import FakeRunner
from tasks.engine.generation.intake import Intake, preparer
from tasks.engine.generation.sequence import Request
from tasks.engine.text.length import LONG_CHARACTERS
from tasks.messages.engine import EngineConfig, Submit
from tests.support import wait_until

if TYPE_CHECKING:
    from tasks.messages.engine import Work


def test_a_long_prompt_holds_up_no_short_ones() -> None:
    """While one is prepared, those that came behind it are, and are handed over; it follows when it is done."""
    intake: Intake[Request] = Intake()
    intake.start(preparer(FakeRunner(EngineConfig(model="fake:0"), lambda: None)))
    for name, prompt in (("long", "!slow@1 " + "x" * LONG_CHARACTERS), ("one", "short"), ("other", "short")):
        intake.receive(Submit(task_id=name, messages=None, prompt=prompt, max_tokens=1))
    came: list[str] = []

    def have_come(count: int) -> bool:
        came.extend(item.task_id for item in intake.collect() if isinstance(item, Request))
        return len(came) >= count

    wait_until(lambda: have_come(2))
    assert came == ["one", "other"]
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

"""The engine's loop, turned by hand over the fake model: counts are exact, and nothing depends on time."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from tasks.engine.fake import FakeRunner, fake_text
from tasks.engine.fake_options import KV, WEIGHTS_BYTES
from tasks.engine.generation.intake import Intake, prepare, preparer
from tasks.engine.generation.loop import GenerationLoop
from tasks.engine.generation.memory import MemoryBound
from tasks.engine.generation.patience import Patience
from tasks.engine.generation.runner import OutOfDeviceMemory
from tasks.messages.engine import Abort, EngineConfig, Resize, Resized, Started, StepOutput, Submit
from tasks.messages.memory import STEP_TOKENS
from tests.engine_client import GREEDY, Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tasks.engine.generation.intake import Item
    from tasks.engine.generation.runner import Draw, ModelRunner
    from tasks.engine.generation.sequence import Request
    from tasks.engine.text.prompt import Prompt

STEP_BYTES = STEP_TOKENS * KV.bytes_per_token
#: Waits for promised memory as long as any test runs.
PATIENT = Patience(promise_s=60.0)


class HandIntake(Intake["Request"]):
    """Prepares requests where the test says so, and never waits."""

    def __init__(self, runner: ModelRunner) -> None:
        super().__init__()
        self.items: list[Item] = []
        #: After so many looks for a request in the middle of steps this is called, once.
        self.after_asks = 0
        self.on_asks: Callable[[], None] = lambda: None
        self._runner = runner
        self._prepare = preparer(runner)
        self._uid = 0

    def put(self, submit: Submit) -> None:
        self._uid += 1
        self.items.append(prepare(self._uid, submit, self._runner))

    @property
    def has_ready(self) -> bool:
        self.after_asks -= 1
        if self.after_asks == 0:
            self.on_asks()
        return bool(self.items)

    def collect(self, gather_s: float | None = None, most: int | None = None) -> list[Item]:
        items, self.items, self._ready = [*self.items, *self._ready], [], []
        return items


class Loop:
    """An engine whose turns the test makes."""

    def __init__(
        self,
        *,
        max_batch: int = 4,
        urgent_rows: int = 0,
        total_bytes: int | None = None,
        runner: Any = None,
        patience: Patience = PATIENT,
    ) -> None:
        self.runner: Any = runner or FakeRunner(EngineConfig(model="fake:0"), lambda: None)
        self.intake = HandIntake(self.runner)
        self.outputs: list[StepOutput] = []
        self.answers: dict[str, Answer] = {}
        self.resized: list[int] = []
        self.engine = GenerationLoop(
            *(self.runner, self.intake, self._take),
            EngineConfig(model="", max_batch=max_batch, urgent_rows=urgent_rows, memory_budget_bytes=total_bytes),
            patience=patience,
        )

    def submit(self, task_id: str, max_tokens: int = 4, **fields: Any) -> None:
        raw = {"messages": None, "prompt": task_id, "sampling": GREEDY}
        self.answers[task_id] = Answer()
        self.intake.put(Submit(**{"task_id": task_id, "max_tokens": max_tokens, **raw, **fields}))

    def abort(self, task_id: str) -> None:
        self.intake.items.append(Abort(task_id))

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self.engine.turn()

    def finish(self, most_turns: int = 500) -> None:
        """Turn until every request has ended."""
        for _ in range(most_turns):
            if all(answer.done for answer in self.answers.values()):
                return
            self.turn()
            self.engine.send()
        pytest.fail(f"not done after {most_turns} turns")

    def resize(self, total_bytes: int, promised_bytes: int = 0) -> None:
        self.intake.items.append(Resize(total_bytes, promised_bytes))

    def _take(self, output: StepOutput | Resized) -> None:
        if isinstance(output, Resized):
            self.resized.append(output.memory_budget_bytes)
            return
        self.outputs.append(output)
        for event in output.events:
            self.answers[event.task_id].add(event, output.step)


def test_one_message_for_each_step() -> None:
    """Three requests of four tokens are four messages, with all their events, behind one that says who joined."""
    loop = Loop()
    for name in "abc":
        loop.submit(name)
    loop.finish()
    assert [output.step for output in loop.outputs] == [0, 1, 2, 3, 4]
    assert [output.running for output in loop.outputs] == [3, 3, 3, 3, 0]
    assert all(isinstance(event, Started) for event in loop.outputs[0].events)


def test_an_abort_frees_the_slot_within_one_step() -> None:
    """No token comes in the turn that sees the abort, and the next in line decodes in that same turn."""
    loop = Loop(max_batch=1)
    loop.submit("running", 100)
    loop.submit("waiting", 3)
    loop.turn(5)
    assert len(loop.answers["running"].ids) == 5
    loop.abort("running")
    loop.turn()
    assert loop.answers["running"].reason == "cancelled"
    assert len(loop.answers["running"].ids) == 5
    assert len(loop.answers["waiting"].ids) == 1


def test_an_abort_of_a_waiting_request() -> None:
    """It ends without having started, and never decodes."""
    loop = Loop(max_batch=1)
    loop.submit("running", 5)
    loop.submit("waiting", 5)
    loop.turn()
    loop.abort("waiting")
    loop.finish()
    assert loop.answers["waiting"].reason == "cancelled"
    assert loop.answers["waiting"].started is None
    assert loop.answers["running"].text == fake_text("running", None, 5)


def test_a_step_without_memory_halves_the_batch_and_loses_nothing() -> None:
    """All four requests go on, two at a time, and say what they would have said."""
    loop = Loop()
    for name in ("a", "b", "!oom@3", "d"):
        loop.submit(name, 8)
    loop.finish()
    for name, answer in loop.answers.items():
        assert answer.text == fake_text(name, None, 8)
        assert answer.reason == "length"
    after = [output.running for output in loop.outputs if output.step > 3]
    assert max(after) == 2


def test_logits_that_are_no_numbers_end_their_request_alone() -> None:
    """After the tokens before it, with an error; its place is free in that same turn, and the others say what they say."""
    loop = Loop(max_batch=2)
    for name in ("a", "!nan@3", "c"):
        loop.submit(name, 8)
    loop.finish()
    broken = loop.answers.pop("!nan@3")
    assert broken.failed is not None
    assert broken.failed.code == "internal_error"
    assert "not finite numbers for token 3" in broken.failed.message
    assert len(broken.ids) == 3
    for name, answer in loop.answers.items():
        assert answer.text == fake_text(name, None, 8)
    assert max(output.running for output in loop.outputs) == 2


def test_a_halved_batch_grows_again() -> None:
    """After enough steps that fitted, as many rows run as before."""
    loop = Loop(patience=Patience(recover_steps=3))
    for name in ("!oom@1", "b", "c", "d"):
        loop.submit(name, 12)
    loop.finish()
    assert max(output.running for output in loop.outputs[4:]) > 2


class Hungry(FakeRunner):
    """Runs out of memory whenever a certain request is in the batch."""

    def decode(self, pause: Callable[[], None] | None = None) -> list[Draw]:
        if any(row.prompt == "too much" for row in self._rows.values()):
            raise OutOfDeviceMemory("no room for this one")
        return super().decode(pause)


def test_a_request_that_runs_out_of_memory_alone_fails_alone() -> None:
    """It is tried in company, then alone, then once more; the others are answered."""
    loop = Loop(runner=Hungry(EngineConfig(model="fake:0"), lambda: None))
    for name in ("a", "too much", "c"):
        loop.submit(name, 4)
    loop.finish()
    failed = loop.answers.pop("too much").failed
    assert failed is not None
    assert failed.code == "out_of_memory"
    assert "no room for this one" in failed.message
    assert all(answer.reason == "length" for answer in loop.answers.values())


def room_for(steps: int) -> int:
    """A bound for the weights and so many short requests."""
    empty = MemoryBound(0, WEIGHTS_BYTES, KV)
    return WEIGHTS_BYTES + empty.margin_bytes + steps * STEP_BYTES


def test_what_can_never_fit_is_refused_with_the_numbers() -> None:
    """Need and budget are in the message; nobody else is concerned."""
    loop = Loop(total_bytes=room_for(2))
    loop.submit("too long", 3 * STEP_TOKENS)
    loop.submit("short")
    loop.finish()
    failed = loop.answers["too long"].failed
    assert failed is not None
    assert failed.code == "out_of_memory"
    assert str(4 * STEP_BYTES) in failed.message
    assert str(room_for(2)) in failed.message
    assert loop.answers["short"].reason == "length"


def test_what_does_not_fit_now_waits_in_line() -> None:
    """With room for two, at most two run; a large one in front is not overtaken for ever."""
    loop = Loop(total_bytes=room_for(2))
    loop.submit("a")
    loop.submit("large", STEP_TOKENS + 10)
    for name in "bcd":
        loop.submit(name)
    loop.turn(2)
    assert [name for name, answer in loop.answers.items() if answer.started] == ["a"]
    loop.finish()
    assert max(output.running for output in loop.outputs) <= 2
    assert loop.answers["large"].steps[0] < loop.answers["b"].steps[0]


def test_the_batch_never_exceeds_the_budget() -> None:
    """At every step the rows at their longest, weights and margin fit together."""
    bound = MemoryBound(room_for(6), WEIGHTS_BYTES, KV)
    loop = Loop(max_batch=16, total_bytes=bound.total_bytes)
    for number in range(20):
        loop.submit(str(number), 100 * (1 + number % 5))
    while not all(answer.done for answer in loop.answers.values()):
        loop.turn()
        lengths = [row.request.most_tokens for row in loop.runner._rows.values()]
        assert bound.room_bytes(lengths) >= 0
    assert all(answer.reason == "length" for answer in loop.answers.values())


def test_a_smaller_budget_is_kept_to_once_enough_has_ended() -> None:
    """Nothing that runs is cut short; the engine says when it fits, and admits only what fits from then on."""
    loop = Loop(total_bytes=room_for(4))
    for number in range(8):
        loop.submit(str(number), 5)
    loop.turn(2)
    loop.resize(room_for(1))
    loop.turn()
    assert loop.resized == []
    loop.finish()
    assert loop.resized == [room_for(1)]
    assert all(answer.reason == "length" for answer in loop.answers.values())
    assert max(output.running for output in loop.outputs if output.step > 6) == 1


def test_a_request_waits_for_memory_that_is_promised() -> None:
    """Another engine is about to give it back: until then shorter requests run, and what exceeds the promise is refused."""
    loop = Loop(total_bytes=room_for(1))
    loop.resize(room_for(1), room_for(3))
    loop.submit("long", STEP_TOKENS)
    loop.submit("too long", 4 * STEP_TOKENS)
    loop.submit("short")
    loop.turn(2)
    assert loop.answers["long"].started is None
    assert loop.answers["too long"].failed is not None
    assert loop.answers["short"].started is not None
    loop.resize(room_for(3), room_for(3))
    loop.finish()
    assert loop.answers["long"].reason == "length"


def test_a_promise_that_is_not_kept_is_not_waited_for_for_ever() -> None:
    """The error has the numbers as they are."""
    loop = Loop(total_bytes=room_for(1), patience=Patience(promise_s=0.0))
    loop.resize(room_for(1), room_for(3))
    loop.submit("long", STEP_TOKENS)
    loop.finish()
    failed = loop.answers["long"].failed
    assert failed is not None
    assert str(room_for(1)) in failed.message


def test_a_larger_budget_holds_at_once() -> None:
    """What waited for room starts, also where there was no bound before."""
    loop = Loop(total_bytes=room_for(1))
    for name in "ab":
        loop.submit(name, 50)
    loop.turn(2)
    loop.resize(room_for(2))
    loop.turn()
    assert loop.resized == [room_for(2)]
    assert loop.answers["b"].started is not None


@pytest.mark.parametrize(("overtake_s", "before"), [(60.0, False), (0.0, True)])
def test_a_suspect_is_prepared_when_nothing_else_runs(
    monkeypatch: pytest.MonkeyPatch, overtake_s: float, before: bool
) -> None:
    """Its template or its tokens may be what kills engines. Others overtake it for a while, and then wait for it."""
    loop = Loop(max_batch=2, patience=Patience(overtake_s=overtake_s))
    encode: Callable[[Submit], Prompt] = loop.runner.encode
    beside: list[int] = []

    def noted(submit: Submit) -> Prompt:
        if submit.task_id == "apart":
            beside.append(len(loop.engine._running))
        return encode(submit)

    monkeypatch.setattr(loop.runner, "encode", noted)
    loop.submit("first", 6)
    loop.turn(2)
    loop.answers["apart"] = Answer()
    apart = Submit(task_id="apart", messages=None, prompt="apart", max_tokens=3, sampling=GREEDY, isolate="alone")
    loop.intake.receive(apart)
    loop.turn(2)
    loop.submit("later", 3)
    loop.finish()
    assert beside == [0]
    assert (loop.answers["apart"].steps[0] < loop.answers["later"].steps[0]) == before


def _intake() -> Intake[Request]:
    intake: Intake[Request] = Intake()
    intake.start(preparer(FakeRunner(EngineConfig(model="fake:0"), lambda: None)))
    return intake


def _submit(task_id: str) -> Submit:
    return Submit(task_id=task_id, messages=None, prompt=task_id, max_tokens=1)


def test_a_burst_at_an_idle_engine_is_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen requests that come one after another are collected at once."""
    monkeypatch.setattr("tasks.engine.generation.intake.MOST_GATHER_S", 60.0)
    intake = _intake()

    def send() -> None:
        for number in range(16):
            intake.receive(_submit(str(number)))

    sender = threading.Thread(target=send)
    sender.start()
    items = intake.collect(gather_s=30.0, most=16)
    sender.join()
    assert len(items) == 16


def test_a_burst_that_fills_the_batch_is_waited_for_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing more could join."""
    monkeypatch.setattr("tasks.engine.generation.intake.MOST_GATHER_S", 600.0)
    intake, collected = _intake(), list[object]()
    for number in range(4):
        intake.receive(_submit(str(number)))
    idle = threading.Thread(target=lambda: collected.extend(intake.collect(600.0, 4)), daemon=True)
    idle.start()
    idle.join(30)
    assert len(collected) == 4


def test_an_abort_overtakes_nobody_of_its_own() -> None:
    """An abort that comes while its request is tokenised follows it; one for an earlier request comes at once."""
    intake: Intake[Request] = Intake()
    intake.receive(_submit("slow"))
    intake.receive(Abort("slow"))
    intake.receive(Abort("earlier"))
    assert intake.collect() == [Abort("earlier")]
    intake.start(preparer(FakeRunner(EngineConfig(model="fake:0"), lambda: None)))
    request, abort = intake.collect(gather_s=0.2)
    assert getattr(request, "task_id", None) == "slow"
    assert abort == Abort("slow")


class Panic(BaseException):
    """As tokenizers raises for "£" where a vocabulary has an added token that its normaliser leaves nothing of."""

    __module__ = "pyo3_runtime"


@pytest.mark.parametrize("error", [ZeroDivisionError("unforeseen"), Panic("unforeseen")])
def test_a_request_that_cannot_be_prepared_fails_alone(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Even an error that nobody foresaw becomes one Failed, and the next request is prepared."""
    runner = FakeRunner(EngineConfig(model="fake:0"), lambda: None)
    encode: Callable[[Submit], Prompt] = runner.encode

    def broken(submit: Submit) -> Prompt:
        if submit.prompt == "bad":
            raise error
        return encode(submit)

    monkeypatch.setattr(runner, "encode", broken)
    monkeypatch.setattr("tasks.engine.generation.intake.MOST_GATHER_S", 60.0)
    intake: Intake[Request] = Intake()
    intake.receive(_submit("bad"))
    intake.receive(_submit("good"))
    intake.start(preparer(runner))
    failed, good = intake.collect(gather_s=0.2)
    assert getattr(failed, "code", None) == "internal_error"
    assert "unforeseen" in getattr(failed, "message", "")
    assert getattr(good, "task_id", None) == "good"


class Fragile(FakeRunner):
    """Runs out of memory in one call, once."""

    def __init__(self, call: str) -> None:
        super().__init__(EngineConfig(model="fake:0"), lambda: None)
        self.call = call

    def _fail(self, call: str) -> None:
        if call == self.call:
            self.call = ""
            raise OutOfDeviceMemory(call)

    def insert(self, request: Request) -> int:
        if self._rows:
            self._fail("insert")
        return super().insert(request)

    def prefill(self, pause: Callable[[], None] | None = None) -> list[Draw]:
        self._fail("prefill")
        return super().prefill(pause)

    def remove(self, uids: Sequence[int], *, keep: bool) -> None:
        self._fail("remove and keep" if keep else "remove")
        super().remove(uids, keep=keep)


@pytest.mark.parametrize("call", ["insert", "prefill", "remove", "remove and keep"])
def test_memory_that_runs_out_anywhere_loses_nothing(call: str) -> None:
    """While rows are added, computed, aborted or ended: what was asked is answered, once, and what was aborted stays so."""
    loop = Loop(runner=Fragile(call))
    for name in "abc":
        loop.submit(name, 6)
    loop.submit("aborted", 50)
    loop.turn(3)
    loop.abort("aborted")
    loop.submit("later", 6)
    loop.finish()
    assert loop.runner.call == ""
    assert loop.answers.pop("aborted").reason == "cancelled"
    for name, answer in loop.answers.items():
        assert answer.text == fake_text(name, None, 6)

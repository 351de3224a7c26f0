"""Urgent requests beside batch work: what is computed between their arrival and their first tokens, and that all answers stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.parts.tiny_model import end_id, make_tiny_model
from tasks.engine.fake import fake_text
from tasks.engine.generation.patience import Patience
from tasks.engine.model.batching.pace import ROW_TOKENS, Pace
from tasks.engine.model.batching.urgent import EXPECTED_STEPS
from tasks.engine.model.layout.host import prepare
from tasks.engine.model.loading import load_laid_out
from tasks.engine.model.mlx import load_model
from tasks.messages.engine import EngineConfig, Resized, Sampling, StepOutput, Tokens
from tests.unit.engine.generation.test_engine_loop import Loop, room_for

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.engine.model.mlx import MlxRunner

pytestmark = pytest.mark.xdist_group("mlx")

ROWS = [f"{'a word ' * number}of row {number}" for number in range(4)]
URGENT = "ask " * 5
TOKENS = 24


class Arriving(Loop):
    """A loop to which requests come in the middle of a step."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        #: How many tokens each had when a request came, and when it had its first token.
        self.before: dict[str, dict[str, int]] = {}
        self.at_first: dict[str, dict[str, int]] = {}

    def submit_within(self, asked: int, task_id: str, max_tokens: int, **fields: Any) -> None:
        """Have a request come when the loop has looked for one so many times within its steps."""

        def submit() -> None:
            self.before[task_id] = self.counts
            self.submit(task_id, max_tokens, **fields)

        self.intake.after_asks, self.intake.on_asks = asked, submit

    @property
    def counts(self) -> dict[str, int]:
        """How many tokens each row of batch work has."""
        return {name: len(self.answers[name].ids) for name in ROWS}

    def _take(self, output: StepOutput | Resized) -> None:
        super()._take(output)
        if isinstance(output, StepOutput):
            for event in output.events:
                if isinstance(event, Tokens) and event.index == 0:
                    self.at_first[event.task_id] = self.counts


def filled(runner: MlxRunner | None = None, **options: Any) -> Arriving:
    """A batch of four with four rows of batch work that decode, which takes two urgent ones beyond them."""
    loop = Arriving(max_batch=len(ROWS), urgent_rows=2, runner=runner)
    for name in ROWS:
        loop.submit(name, TOKENS, gives_way=True, **options)
    loop.turn(6)
    assert all(loop.counts.values())
    return loop


def test_beyond_a_full_batch() -> None:
    """An urgent request has its first token before any row of batch work has another one; the third waits for a place."""
    loop = filled()
    before = loop.counts
    for name in ("first", "second", "third"):
        loop.submit(name, 9)
    loop.turn()
    assert loop.at_first["first"] == loop.at_first["second"] == before
    assert [len(loop.answers[name].ids) for name in ("first", "second", "third")] == [2, 2, 0]
    assert loop.counts == {name: count + 1 for name, count in before.items()}
    loop.finish()
    assert max(output.running for output in loop.outputs) == len(ROWS) + 2
    assert all(answer.text == fake_text(name, None, len(answer.ids)) for name, answer in loop.answers.items())


def test_no_place_beyond_urgent_ones() -> None:
    """A batch that is full of urgent requests takes no more of them, and batch work none beyond its limit."""
    loop = Loop(max_batch=2, urgent_rows=1)
    for name in ("a", "b", "c"):
        loop.submit(name, 5)
    loop.submit("batch work", 5, gives_way=True)
    loop.finish()
    assert max(output.running for output in loop.outputs) == 2


def test_batch_work_makes_room_in_memory() -> None:
    """A row leaves the batch for an urgent request that does not fit beside it, and says the rest afterwards."""
    loop = Loop(total_bytes=room_for(2), urgent_rows=1)
    for name in ("row", "other row"):
        loop.submit(name, 40, gives_way=True)
    loop.turn(3)
    loop.submit("urgent", 5)
    loop.turn(2)
    assert len(loop.answers["urgent"].ids) == 3
    loop.finish()
    assert all(answer.text == fake_text(name, None, len(answer.ids)) for name, answer in loop.answers.items())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module", params=["mlx", "numpy"])
def runner(folder: Path, request: pytest.FixtureRequest) -> MlxRunner:
    """The model, whose steps and prompts are computed by either."""
    config = EngineConfig(model="tiny", source=str(folder), prompt_cache_bytes=8 << 20, prefill_step_tokens=64)

    def load_on_host(*args: Any) -> Any:
        loaded = load_laid_out(*args)
        prepare(loaded.model)
        loaded.model.host_tokens, loaded.model.host_prompts = 2 * len(ROWS), True
        return loaded

    with pytest.MonkeyPatch.context() as patch:
        if request.param == "numpy":
            patch.setattr("tasks.engine.model.mlx.load_laid_out", load_on_host)
        return load_model(config, lambda *_: None, "")


@pytest.fixture
def endless(folder: Path) -> Sampling:
    """Greedy, and never an end token."""
    return Sampling(temperature=0.0, logit_bias={end_id(folder): -1000.0})


def alone(runner: MlxRunner, endless: Sampling, *names: str) -> dict[str, list[int]]:
    """What each says where nobody else asks."""
    loop = Loop(runner=runner)
    for name in names:
        loop.submit(name, TOKENS, sampling=endless)
        loop.finish()
    return {name: answer.ids for name, answer in loop.answers.items()}


@pytest.mark.parametrize("asked", [1, 2, 3])
def test_in_the_middle_of_a_step(runner: MlxRunner, endless: Sampling, asked: int) -> None:
    """A request that comes in any layer of a step has its first token before the step's own; all say what they say alone."""
    loop = filled(runner, sampling=endless)
    loop.submit_within(asked, URGENT, TOKENS, sampling=endless)
    loop.finish()
    assert loop.at_first[URGENT] == loop.before[URGENT]
    assert {name: answer.ids for name, answer in loop.answers.items()} == alone(runner, endless, *ROWS, URGENT)


def test_in_the_middle_of_a_prefill(runner: MlxRunner, endless: Sampling) -> None:
    """The same while prompts of batch work are computed, before any of these has a token."""
    loop = Arriving(max_batch=len(ROWS), urgent_rows=2, runner=runner)
    for name in ROWS:
        loop.submit(name, TOKENS, gives_way=True, sampling=endless)
    loop.submit_within(2, URGENT, TOKENS, sampling=endless)
    loop.finish()
    assert loop.at_first[URGENT] == loop.before[URGENT] == dict.fromkeys(ROWS, 0)
    assert {name: answer.ids for name, answer in loop.answers.items()} == alone(runner, endless, *ROWS, URGENT)


def test_together_with_batch_work(runner: MlxRunner, endless: Sampling) -> None:
    """Of requests that come at once, or in two turns, the urgent one has its token before prompts of batch work are computed."""
    for turns in (0, 1):
        loop = Arriving(max_batch=len(ROWS) + 1, runner=runner)
        loop.submit(URGENT, TOKENS, sampling=endless)
        loop.turn(turns)
        for name in ROWS:
            loop.submit(name, TOKENS, gives_way=True, sampling=endless)
        loop.turn(2 - turns)
        assert loop.answers[URGENT].ids
        assert not any(loop.counts.values())
        loop.finish()
        assert {name: answer.ids for name, answer in loop.answers.items()} == alone(runner, endless, *ROWS, URGENT)


def test_batch_work_waits_for_no_long_prompt(runner: MlxRunner, endless: Sampling) -> None:
    """Batch work that has waited joins beside an urgent request without a token."""
    loop = Loop(runner=runner, patience=Patience(overtake_s=0.0))
    long = "long " * 400
    loop.submit(long, 1, sampling=endless)
    loop.submit("batch work", 1, gives_way=True, sampling=endless)
    loop.turn(2)
    assert not loop.answers[long].ids
    assert loop.outputs[-1].running == 2
    loop.finish()


def test_smaller_prefills_while_urgent_requests_come(
    runner: MlxRunner, endless: Sampling, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a layer of prompts takes long, a step computes fewer of their tokens for a while after an urgent request."""
    batch = runner._batch
    batch.reset()
    usual = batch._bounds()
    loop = filled(runner, sampling=endless)
    loop.submit(URGENT, 1, sampling=endless)
    loop.finish()
    monkeypatch.setattr(batch, "_pace", pace := Pace())
    pace.prefilled(64, 60.0, beside_a_step=False)
    assert batch._bounds() == (ROW_TOKENS, ROW_TOKENS) < usual
    for _ in range(EXPECTED_STEPS):
        batch._begin_step(None)
    assert batch._bounds() == usual


def test_a_long_prompt_interrupts_nothing(runner: MlxRunner, endless: Sampling) -> None:
    """It is computed in pieces, beside steps of the others."""
    loop = filled(runner, sampling=endless)
    before = loop.counts
    long = "long " * 70
    loop.submit(long, 3, sampling=endless)
    while not loop.answers[long].ids:
        loop.turn()
    assert all(loop.counts[name] > before[name] for name in ROWS)
    loop.finish()


def test_one_that_ends_in_the_middle_of_a_step(runner: MlxRunner, endless: Sampling) -> None:
    """A request of one token, and one that is aborted at once, leave the others as they are."""
    loop = filled(runner, sampling=endless)
    loop.submit_within(1, URGENT, 1, sampling=endless)
    loop.turn(2)
    assert loop.answers[URGENT].reason == "length"
    loop.submit_within(1, "again", TOKENS, sampling=endless)
    loop.turn(1)
    loop.abort("again")
    loop.finish()
    assert {name: loop.answers[name].ids for name in ROWS} == alone(runner, endless, *ROWS)

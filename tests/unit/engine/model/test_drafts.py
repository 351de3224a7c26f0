"""Several tokens of a row in one step: that the answer is the one of single steps, and that it takes fewer."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import pytest

from benchmarks.parts.tiny_model import make_tiny_model
from tasks.engine.model.batching.rows import Row
from tasks.engine.model.drafting.delay import MOST_SHARE
from tasks.engine.model.drafting.drafts import FEW_TOKENS, MOST_STEP_TOKENS, Drafts, continued
from tasks.engine.model.drafting.worth import PAUSE_STEPS, PLAIN_EVERY, WINDOW_STEPS, Worth
from tasks.engine.model.mlx import MlxRunner, load_model
from tasks.messages.constraint import Constraint
from tasks.messages.engine import EngineConfig, Sampling
from tests.engine_client import resume_from
from tests.unit.engine.generation.test_engine_loop import Loop

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.engine.model.batching.stepping import Stepping
    from tasks.engine.sampling.sampler import BatchSampler
    from tests.engine_client import Answer

pytestmark = pytest.mark.xdist_group("mlx")

GREEDY = Sampling(temperature=0.0)
INVOICE = Constraint(
    kind="json_schema",
    value=json.dumps(
        {
            "type": "object",
            "properties": {
                "customer": {"type": "string", "maxLength": 6},
                "currency": {"enum": ["EUR", "USD"]},
                "paid": {"type": "boolean"},
            },
            "required": ["customer", "currency", "paid"],
            "additionalProperties": False,
        }
    ),
)
#: Rows beside each other: greedy, drawn, with log-probabilities, ended by a stop string and by their length within forced text.
ROWS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "drawn": {"sampling": Sampling(temperature=1.0, seed=3, top_p=0.9)},
    "scored": {"sampling": Sampling(temperature=0.0, logprobs=True, top_logprobs=2)},
    "stopped": {"stop": ("renc",)},
    "short": {"length": 9},
    "penalised": {"sampling": Sampling(temperature=0.0, frequency_penalty=0.5, repetition_penalty=1.1)},
    "free": {"constraint": None, "length": 40},
    "choice": {"constraint": Constraint(kind="choice", value=json.dumps(["an apple", "a banana"]))},
}


class Always(Worth):
    """Has drafts whatever they cost."""

    pays = True


@pytest.fixture(scope="module")
def runners(tmp_path_factory: pytest.TempPathFactory) -> dict[str, MlxRunner]:
    """A model with random weights, with drafts and without."""
    folder: Path = make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")
    config = EngineConfig(model="tiny", source=str(folder), prompt_cache_bytes=8 << 20, prefill_step_tokens=64)
    made: dict[str, MlxRunner] = {}
    kinds: dict[str, dict[str, Any]] = {"drafted": {"make_worth": Always}, "single": {"slots": False}}
    for name, changes in kinds.items():
        made[name] = load_model(config, lambda *_: None, "", adjust=partial(_changed, changes))
    return made


def _changed(changes: dict[str, Any], usual: Stepping) -> Stepping:
    return replace(usual, **changes)


def _answers(runner: MlxRunner, rows: dict[str, dict[str, Any]]) -> tuple[dict[str, Answer], int]:
    """The rows' answers, all asked at once, and the steps that they took."""
    loop = Loop(max_batch=16, runner=runner)
    for name, fields in rows.items():
        loop.submit(
            *(name, fields.get("length", 200)),
            **{"constraint": INVOICE, "sampling": GREEDY, **{key: fields[key] for key in fields if key != "length"}},
        )
    loop.finish()
    return loop.answers, max(output.step for output in loop.outputs)


@pytest.mark.parametrize("names", [[name] for name in ROWS if name != "free"] + [list(ROWS)], ids=",".join)
def test_answers_are_those_of_single_steps(runners: dict[str, MlxRunner], names: list[str]) -> None:
    """Forced tokens change nothing about an answer, alone and beside others: ids, text, end, usage and log-probabilities."""
    rows = {name: ROWS[name] for name in names}
    drafted, drafted_steps = _answers(runners["drafted"], rows)
    single, single_steps = _answers(runners["single"], rows)
    for name in names:
        assert drafted[name].ids == single[name].ids
        assert (drafted[name].text, drafted[name].reason) == (single[name].text, single[name].reason)
        assert drafted[name].finished == single[name].finished
        for mine, theirs in zip(drafted[name].logprobs, single[name].logprobs, strict=True):
            assert mine.id == theirs.id
            assert mine.logprob == pytest.approx(theirs.logprob, abs=1e-3)
            assert [token for token, _, _ in mine.top] == [token for token, _, _ in theirs.top]
    if names == ["penalised"]:
        assert drafted_steps == single_steps
    else:
        assert drafted_steps < single_steps


#: The letter a, and the next one is b.
A = ord("a") - ord("!")
REPEATING = "one two three, one two three, one two "
COPYING: dict[str, dict[str, Any]] = {
    "greedy": {"length": 40, "sampling": Sampling(temperature=0.0, logit_bias={A: 90.0})},
    "drawn": {"length": 60, "sampling": Sampling(temperature=1.0, seed=3, logit_bias={A: 90.0, A + 1: 90.0})},
    "scored": {"length": 30, "sampling": Sampling(temperature=0.0, logprobs=True, top_logprobs=2)},
    "pattern": {"constraint": Constraint(kind="regex", value="(ab){10}"), "length": 40},
}


@pytest.mark.parametrize("names", [["greedy"], ["drawn", "scored"], ["pattern"]], ids=",".join)
def test_what_repeats_itself_is_said_as_by_single_steps(runners: dict[str, MlxRunner], names: list[str]) -> None:
    """Where one or two rows run, what followed before is a draft: the answers are the same, and take fewer steps."""
    rows = {name: {"prompt": REPEATING, "constraint": None, **COPYING[name]} for name in names}
    drafted, drafted_steps = _answers(runners["drafted"], rows)
    single, single_steps = _answers(runners["single"], rows)
    assert drafted_steps < single_steps
    for name in names:
        assert drafted[name].ids == single[name].ids
        assert drafted[name].finished == single[name].finished
        assert [score.id for score in drafted[name].logprobs] == [score.id for score in single[name].logprobs]


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([1, 2, 3, 4, 9, 2, 3, 4], [9, 2, 3, 4]),
        ([1, 2, 8, 1, 2, 9, 7, 1, 2], [9, 7, 1, 2]),
        ([5, 5, 5, 5], [5]),
        ([1, 2, 3], []),
        ([7], []),
    ],
)
def test_what_followed_before(tokens: list[int], expected: list[int]) -> None:
    """The last place at which the last three tokens stood, or else the last two, says what may follow."""
    assert continued(tokens) == expected


class Leading:
    """A sampler whose grammars lead to ten tokens each; rows from number ``free`` on have none."""

    def __init__(self, free: int = 1000) -> None:
        self.free = free

    def is_led(self, uid: int) -> bool:
        """See :meth:`tasks.engine.sampling.sampler.BatchSampler.is_led`."""
        return uid < self.free

    def expected(self, uid: int, most: int) -> list[int]:
        """See :meth:`tasks.engine.sampling.sampler.BatchSampler.expected`."""
        return [uid] * min(10, most) if uid < self.free else []


def drafts_of(free: int = 1000) -> Drafts:
    """The drafts of such rows."""
    return Drafts(cast("BatchSampler", Leading(free)), Always)


def test_expected_tokens_fill_a_step_up_to_its_bound() -> None:
    """More tokens than numpy computes would leave the step to MLX, which copies a row for each of them."""
    rows = [Row(uid, [1, 2], 20, 0) for uid in range(MOST_STEP_TOKENS - 14)]
    drafts = drafts_of().propose(rows)
    assert [len(draft) for draft in drafts] == [10, 4, *(0 for _ in rows[2:])]


def test_drafts_hold_up_rows_without_by_little() -> None:
    """Beside a row without a grammar a step has few tokens of drafts, and the next ones wait until their time is made up for."""
    rows = [Row(uid, [1, 2], 200, 0) for uid in range(4)]
    drafts = drafts_of(free=3)
    lengths = []
    for _ in range(400):
        drafted = sum(map(len, drafts.propose(rows)))
        drafts.stepped(4, 4 + drafted, 1.1 if drafted else 1.0)
        lengths.append(drafted)
    assert {*lengths} == {0, FEW_TOKENS}
    assert 1 < lengths.count(FEW_TOKENS) <= 1 + 400 * MOST_SHARE / 0.1


def test_answers_of_one_grammar_need_fewer_steps_each(runners: dict[str, MlxRunner]) -> None:
    """What earlier answers had around and in their values is drafted, and stays what single steps say."""
    schema = json.loads(INVOICE.value) | {"title": "read before"}  # a grammar that no other test has taught
    rows = {"answer": {"constraint": Constraint(kind="json_schema", value=json.dumps(schema))}}
    single, _ = _answers(runners["single"], rows)
    steps = []
    for _ in range(6):
        drafted, last = _answers(runners["drafted"], rows)
        steps.append(last)
        assert drafted["answer"].ids == single["answer"].ids
    assert steps[-1] < steps[0] / 2


def test_an_answer_goes_on_within_forced_text(runners: dict[str, MlxRunner]) -> None:
    """Whatever part of an answer an earlier attempt had generated, the whole is the same."""
    runner = runners["drafted"]
    whole = _answers(runner, {"drawn": ROWS["drawn"]})[0]["drawn"]
    for count in range(1, len(whole.ids), 3):
        assert whole.started is not None
        resume = resume_from(whole, count, whole.started.revision)
        rest = _answers(runner, {"rest": {**ROWS["drawn"], "prompt": "drawn", "resume": resume}})[0]["rest"]
        assert whole.ids[:count] + rest.ids == whole.ids


def test_an_abort_between_drafts_leaves_the_others_right(runners: dict[str, MlxRunner]) -> None:
    """Rows that leave while a step with drafts is under way, and rows that join then, move nobody else's tokens."""
    loop = Loop(max_batch=16, runner=runners["drafted"])
    for number in range(6):
        loop.submit(f"row {number}", 200, constraint=INVOICE)
    loop.turn(5)
    for number in (0, 3):
        loop.abort(f"row {number}")
    loop.submit("late", 200, constraint=INVOICE)
    loop.finish()
    names: dict[str, dict[str, Any]] = {name: {} for name in ("row 1", "row 2", "row 4", "row 5", "late")}
    single = _answers(runners["single"], names)[0]
    assert {name: loop.answers[name].ids for name in names} == {name: single[name].ids for name in names}


def test_drafts_go_on_only_where_they_pay() -> None:
    """Steps with drafts that bring less per second than those without are left out for a while, and tried again."""
    worth = Worth()
    worth.stepped(4, 4, 1.0, drafted=False)
    assert _drafted_until_it_stops(worth, 8, 1.5) == PLAIN_EVERY  # one without, to compare with
    worth.stepped(4, 4, 1.0, drafted=False)
    assert _drafted_until_it_stops(worth, 8, 2.5) <= WINDOW_STEPS
    pauses = []
    for _ in range(2):
        pauses.append(0)
        while not worth.pays:
            worth.stepped(4, 4, 1.0, drafted=False)
            pauses[-1] += 1
        assert _drafted_until_it_stops(worth, 8, 2.5) == WINDOW_STEPS
    assert pauses == [PAUSE_STEPS, 2 * PAUSE_STEPS]


def test_drafts_are_compared_with_steps_of_as_many_rows() -> None:
    """One row goes on more quickly than four do, with drafts or without."""
    worth = Worth()
    for rows, seconds in ((4, 1.0), (1, 0.1)):
        worth.stepped(rows, rows, seconds, drafted=False)
    assert _drafted_until_it_stops(worth, 8, 1.5) == PLAIN_EVERY


def _drafted_until_it_stops(worth: Worth, tokens: int, seconds: float) -> int:
    steps = 0
    while worth.pays:
        worth.stepped(4, tokens, seconds, drafted=True)
        steps += 1
    return steps

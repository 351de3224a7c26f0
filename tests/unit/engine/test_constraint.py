"""Answers that are data, on a real tiny model whose own words are noise: what it says is the grammar's doing."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from tasks.engine.constraint.compiler import Compiler
from tasks.engine.constraint.tokens import Tokens
from tasks.engine.model.batch import Batch
from tasks.engine.model.mlx import MlxBackend, load_model
from tasks.engine.text.tokenizer import load_tokenizer
from tasks.errors import CannotResume, InvalidRequest
from tasks.messages.constraint import Constraint
from tasks.messages.engine import EngineConfig, Resume, Sampling
from tests.tiny_model import make_tiny_model
from tests.unit.engine.test_engine_loop import Loop

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engine_client import Answer

pytestmark = pytest.mark.xdist_group("mlx")

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}
GREEDY = Sampling(temperature=0.0)


def of_schema(schema: Any, **more: Any) -> Constraint:
    return Constraint(kind="json_schema", value=json.dumps(schema), **more)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def compiler(folder: Path) -> Compiler:
    """The compiler of the tiny model's grammars."""
    tokenizer = load_tokenizer(folder, trust_remote_code=False, ends=(), template=None)
    return Compiler(lambda: Tokens(tokenizer, 266))


@pytest.fixture(scope="module")
def backends(folder: Path) -> dict[str, MlxBackend]:
    """The model, stepped in both ways: the CPU's, and the GPU's, where a step is launched before the last one is read."""
    config = EngineConfig(model="tiny", source=str(folder), prompt_cache_bytes=8 << 20, prefill_step_tokens=64)
    made = {"one-by-one": load_model(config, lambda *_: None, "")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.engine.model.mlx.Batch", lambda *args, **kwargs: Batch(*args, **{**kwargs, "ahead": True}))
        made["ahead"] = load_model(config, lambda *_: None, "")
    return made


@pytest.fixture(params=["one-by-one", "ahead"])
def loop(backends: dict[str, MlxBackend], request: pytest.FixtureRequest) -> Loop:
    """An engine that is turned by hand."""
    return Loop(max_batch=16, backend=backends[request.param])


@pytest.fixture
def simple(backends: dict[str, MlxBackend]) -> Loop:
    """The same, where how it is stepped makes no difference."""
    return Loop(max_batch=16, backend=backends["one-by-one"])


def ask(loop: Loop, prompt: str, constraint: Constraint | None, **more: Any) -> Answer:
    """The whole answer of one request."""
    loop.submit(prompt, more.pop("length", 200), constraint=constraint, sampling=more.pop("sampling", GREEDY), **more)
    loop.finish()
    return loop.answers[prompt]


def test_constrained_rows_beside_free_ones(loop: Loop, simple: Loop) -> None:
    """Each constrained row says what its own schema allows, whoever comes and goes; free rows say what they say simple."""
    free = {f"free {number}": 20 + 7 * number for number in range(3)}
    schemas = {f"row {number}": {**PERSON, "required": ["age", "name"][: 1 + number % 2]} for number in range(4)}
    for prompt, length in free.items():
        simple.submit(prompt, length, sampling=GREEDY)
    simple.finish()
    for number, (prompt, schema) in enumerate(schemas.items()):
        if number < len(free):
            loop.submit(f"free {number}", free[f"free {number}"], sampling=GREEDY)
        loop.submit(prompt, 200, constraint=of_schema(schema), sampling=Sampling(temperature=1.0, seed=number))
        loop.turn(number)
    loop.finish()
    for prompt, schema in schemas.items():
        answer = loop.answers[prompt]
        assert answer.reason == "stop"
        jsonschema.validate(json.loads(answer.text), schema)
    for prompt in free:
        assert loop.answers[prompt].ids == simple.answers[prompt].ids


def test_a_complete_grammar_ends_the_row_without_an_end_token(loop: Loop) -> None:
    """The last token of the answer is the last character of its language, and no step is spent on an end token."""
    answer = ask(loop, "three digits", Constraint(kind="regex", value="[0-9]{3}"))
    assert re.fullmatch("[0-9]{3}", answer.text)
    assert (answer.reason, len(answer.ids)) == ("stop", 3)
    assert answer.finished is not None
    assert answer.finished.completion_tokens == 3


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        (Constraint(kind="choice", value=json.dumps(["positive", 'a "quoted" one', "naïve/ü"])), None),
        (Constraint(kind="lark", value='start: "SELECT " name\nname: /[a-z]{1,4}/ ";"'), r"SELECT [a-z]{1,4};"),
        (Constraint(kind="regex", value=r"a/b{2}\n\d"), "a/bb\n[0-9]"),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_kinds(simple: Loop, constraint: Constraint, expected: str | None) -> None:
    """Choices, grammars and regular expressions with characters that a grammar has a meaning for are taken as they are."""
    answer = ask(simple, "say", constraint)
    if expected is None:
        assert answer.text in json.loads(constraint.value)
    else:
        assert re.fullmatch(expected, answer.text)
    assert answer.reason == "stop"


def test_an_answer_goes_on_in_mid_string_and_in_mid_character(simple: Loop) -> None:
    """From each of its tokens on a constrained answer is completed as the undisturbed one."""
    constraint = of_schema(
        {
            "type": "object",
            "properties": {"é": {"enum": ["日本", "é"]}},
            "required": ["é"],
            "additionalProperties": False,
        }
    )
    whole = ask(simple, "start", constraint)
    assert whole.started is not None
    jsonschema.validate(json.loads(whole.text), json.loads(constraint.value))
    for count in range(1, len(whole.ids) + 1):
        # The loop's answers are by prompt, and the text that had been shown is in the first part.
        said = "".join(whole.texts[:count])
        resume = Resume(
            ids=whole.ids[:count],
            characters={"content": len(said)},
            revision=whole.started.revision,
            prompt_hash=whole.started.prompt_hash,
        )
        del simple.answers["start"]
        rest = ask(simple, "start", constraint, resume=resume)
        assert whole.ids[:count] + rest.ids == whole.ids
        assert said + rest.text == whole.text
        assert rest.reason == "stop"


def test_the_grammar_engine_is_part_of_the_revision(simple: Loop) -> None:
    """A constrained request cannot go on where another version would mask; a free one has the model's revision simple."""
    free, bound = ask(simple, "free", None, length=2), ask(simple, "bound", Constraint(kind="regex", value="a{5}"))
    assert free.started is not None
    assert bound.started is not None
    assert bound.started.revision.startswith(f"{free.started.revision}+llguidance-")
    resume = Resume(
        ids=bound.ids[:2], characters={}, revision=free.started.revision, prompt_hash=bound.started.prompt_hash
    )
    with pytest.raises(CannotResume, match="revision"):
        simple.submit("again", prompt="bound", constraint=Constraint(kind="regex", value="a{5}"), resume=resume)


def test_tokens_that_the_grammar_does_not_know_are_no_answer(simple: Loop) -> None:
    """Tokens of an earlier attempt that are not of the language fail the request; nothing is cut off and called an answer."""
    constraint = Constraint(kind="regex", value="a{5}")
    whole = ask(simple, "bound", constraint)
    assert whole.started is not None
    resume = Resume(ids=[1, 2], characters={}, revision=whole.started.revision, prompt_hash=whole.started.prompt_hash)
    with pytest.raises(CannotResume, match="language"):
        simple.submit("again", prompt="bound", constraint=constraint, resume=resume)


def test_equal_constraints_compile_once(compiler: Compiler) -> None:
    """A grammar that is known is the same object; another strictness is another grammar."""
    known = compiler.compile(of_schema(PERSON))
    assert compiler.compile(of_schema(PERSON)) is known
    assert compiler.compile(of_schema(PERSON, strict=False)) is not known


@pytest.mark.parametrize(
    "constraint",
    [
        of_schema({"enum": []}),
        of_schema(False),
        of_schema({"type": "integer", "minimum": 3, "maximum": 2}),
        of_schema({"$ref": "#/missing"}),
        Constraint(kind="regex", value="("),
        Constraint(kind="regex", value="(?=a)"),
        Constraint(kind="lark", value="begin: /a/"),
    ],
    ids=str,
)
def test_what_cannot_be_compiled_is_one_error(compiler: Compiler, constraint: Constraint) -> None:
    """It is refused before it joins a batch, in one line."""
    with pytest.raises(InvalidRequest) as caught:
        compiler.compile(constraint)
    assert "\n" not in str(caught.value)


def test_an_error_of_the_matcher_ends_its_row_alone(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A grammar that fails in mid-answer is an error of its request, and no quiet end; its neighbour goes on."""
    loop.submit("bound", 50, constraint=Constraint(kind="regex", value="[0-9]{20}"), sampling=GREEDY)
    loop.submit("beside", 30, sampling=replace(GREEDY, logit_bias={265: -100}))
    loop.turn(6)
    row = next(row for row in loop.backend._batch._sampler._rows.values() if row.matcher is not None)
    row.matcher.take(70)  # a letter, which the grammar does not allow
    loop.finish()
    bound = loop.answers["bound"]
    assert bound.failed is not None
    assert "constraint" in bound.failed.message
    assert len(loop.answers["beside"].ids) == 30


def test_log_probabilities_are_of_what_the_grammar_allows(loop: Loop) -> None:
    """Where the grammar leaves two tokens, these two share all probability, and no other is listed."""
    sampling = Sampling(temperature=0.0, logprobs=True, top_logprobs=5)
    answer = ask(loop, "a or b", Constraint(kind="regex", value="[ab]c"), sampling=sampling)
    assert [len(each.top) for each in answer.logprobs] == [2, 1]
    assert sum(math.exp(value) for _, _, value in answer.logprobs[0].top) == pytest.approx(1.0)
    assert answer.logprobs[1].logprob == pytest.approx(0.0)

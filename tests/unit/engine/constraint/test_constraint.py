"""Answers that are data, on a real tiny model whose own words are noise: what it says is the grammar's doing."""

from __future__ import annotations

import json
import math
import re
import threading
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import jsonschema
import mlx.core as mx
import pytest
from llguidance import LLParserLimits

from benchmarks.parts.tiny_model import make_tiny_model
from benchmarks.structured.generated import generate
from tasks.engine.constraint import masks
from tasks.engine.constraint.compiler import Compiler
from tasks.engine.constraint.grammar import Grammar, Matcher
from tasks.engine.constraint.tokens import Tokens
from tasks.engine.model.batching.rows import Decoding, Row, Rows
from tasks.engine.model.mlx import MlxRunner, load_model
from tasks.engine.sampling.sampler import BatchSampler
from tasks.engine.text.tokenizer import load_tokenizer
from tasks.errors import CannotResume, InvalidRequest
from tasks.messages.constraint import Constraint
from tasks.messages.engine import EngineConfig, Resume, Sampling, Submit
from tests.engine_client import WAIT_S
from tests.unit.engine.generation.test_engine_loop import Loop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from llguidance import LLMatcher

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
def runners(folder: Path) -> dict[str, MlxRunner]:
    """The model, stepped in both ways: the CPU's, and the GPU's, where a step is launched before the last one is read."""
    config = EngineConfig(model="tiny", source=str(folder), prompt_cache_bytes=8 << 20, prefill_step_tokens=64)
    made = {"one-by-one": load_model(config, lambda *_: None, "")}
    made["ahead"] = load_model(config, lambda *_: None, "", adjust=lambda usual: replace(usual, ahead=True))
    return made


@pytest.fixture(params=["one-by-one", "ahead"])
def loop(runners: dict[str, MlxRunner], request: pytest.FixtureRequest) -> Loop:
    """An engine that is turned by hand."""
    return Loop(max_batch=16, runner=runners[request.param])


@pytest.fixture
def simple(runners: dict[str, MlxRunner]) -> Loop:
    """The same, where how it is stepped makes no difference."""
    return Loop(max_batch=16, runner=runners["one-by-one"])


def ask(loop: Loop, name: str, constraint: Constraint | None, **more: Any) -> Answer:
    """The whole answer of one request, whose prompt is its name unless there is one."""
    loop.submit(name, more.pop("length", 200), constraint=constraint, sampling=more.pop("sampling", GREEDY), **more)
    loop.finish()
    return loop.answers[name]


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
    """From every second of its tokens on a constrained answer is completed as the undisturbed one."""
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
    for count in {*range(1, len(whole.ids), 2), len(whole.ids)}:
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


#: As long a way as llguidance still goes.
LONG = {
    "$ref": "#/$defs/d0",
    "$defs": {f"d{number}": {"properties": {"a": {"$ref": f"#/$defs/d{number + 1}"}}} for number in range(400)},
}


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        (of_schema({"enum": []}), "response_format: #: no value is valid (anyOf is empty); change the schema"),
        (of_schema(False), "response_format: #: no value is valid (schema is false); change the schema"),
        (of_schema({"$ref": "#/missing"}), "response_format: #: $ref: '#/missing' leads nowhere; put what it names"),
        (Constraint(kind="regex", value="("), "regex='(': cannot be read (unclosed group); write it as Rust"),
        (Constraint(kind="regex", value="(?=a)"), "regex='(?=a)': cannot be read (look-around, including"),
        (
            Constraint(kind="regex", value=r"(a)\1"),
            r"regex='(a)\\1': cannot be read (backreferences are not supported); write",
        ),
        (
            Constraint(kind="lark", value="begin: /a/"),
            "grammar='begin: /a/': no start rule found; write it in",
        ),
        (
            Constraint(kind="lark", value="start: b"),
            "grammar='start: b': line 1, column 8: unknown name: \"b\"; write it in",
        ),
        (
            Constraint(kind="lark", value="start: a\na: /[/"),
            "grammar='start: a\\na: /[/': line 2, column 4: an expression",
        ),
        (
            Constraint(kind="lark", value='start: start "a"'),
            "grammar='start: start \"a\"': no text is ever complete: a rule",
        ),
        (
            Constraint(kind="lark", value='start: "a" start | "a" start'),
            'grammar=\'start: "a" start | "a" start\': too ambiguous, or without a choice for',
        ),
        (Constraint(kind="lark", value="start: "), "grammar='start: ': only the empty text matches it; give one that"),
        (Constraint(kind="lark", value="start: A\nA: /x{0}/"), "grammar='start: A\\nA: /x{0}/': only the empty text"),
        (Constraint(kind="regex", value="^$"), "regex='^$': only the empty text matches it; give one that matches an"),
        (Constraint(kind="regex", value="a$b"), "regex='a$b': has ^ or $ in its middle; write it as Rust's crate"),
        (Constraint(kind="regex", value=r"\bab"), r"regex='\\bab': has a word boundary; write it as Rust's crate"),
        (
            of_schema({"type": "string", "pattern": r"\bab"}),
            r"response_format: #: pattern: '\\bab' has a word boundary, which cannot be kept to; leave that out",
        ),
        (Constraint(kind="calls", value="begin: /a/"), "tools: no start rule found; send fewer functions or smaller"),
        (of_schema(LONG), "response_format: #: its references lead more than 1000 levels deep; use fewer definitions"),
        (
            Constraint(
                kind="lark", value="start: r0\n" + "\n".join(f"r{number}: r{number + 1}" for number in range(1300))
            ),
            "grammar: it has more than 1200 rules and groups in each other; write it with fewer",
        ),
        (
            of_schema({"$ref": "#"}),
            "response_format: #: no value is valid (each has to have another of its kind in it); ch",
        ),
        (
            of_schema({"$ref": "#"}, strict=False),
            "response_format: #: no value is valid (each has to have another of its",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_compiled_is_one_error(compiler: Compiler, constraint: Constraint, message: str) -> None:
    """It is refused before it joins a batch, in one line that names the field, its value or the place in it, and the remedy."""
    with pytest.raises(InvalidRequest) as caught:
        compiler.compile(constraint)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def alternatives(count: int) -> str:
    """Rules of a Lark grammar, all of which a step has to follow."""
    names = [f"r{number}" for number in range(count)]
    return f"many: {' | '.join(names)}\n" + "\n".join(f'{name}: "a" {name} | "a{name}"' for name in names)


def test_a_grammar_that_is_too_large_for_a_step_fails_alone(loop: Loop) -> None:
    """It is an error of its request, and no quiet end; the rows beside it say what they say without it."""
    loop.submit("alone", 30, sampling=replace(GREEDY, logit_bias={265: -100}))
    loop.finish()
    large = Constraint(kind="lark", value=f"start: /[xy]/ many\n{alternatives(1000)}")
    loop.submit("large", 50, constraint=large, sampling=GREEDY)
    loop.submit("beside", 30, prompt="alone", sampling=replace(GREEDY, logit_bias={265: -100}))
    loop.finish()
    failed = loop.answers["large"].failed
    assert failed is not None
    assert failed.code == InvalidRequest.code
    assert "the constraint of the answer cannot be kept to from token" in failed.message
    assert loop.answers["beside"].ids == loop.answers["alone"].ids


def test_a_mask_that_costs_too_much_fails_one_answer_alone(compiler: Compiler) -> None:
    """Answers of the same grammar go on, those that run and those that come, though llguidance gives them all one lexer."""
    expression = "a[a-z]{1,100}|b(x|[a-z]{1,300}([0-9]{1,300}-|[a-f]+)){1,300}"
    bounded = Compiler(lambda: compiler.tokens, limits=LLParserLimits(step_lexer_fuel=60))
    constraint = Constraint(kind="regex", value=expression)
    grammar = bounded.compile(constraint)
    before, costly, after = (grammar.matcher([id_of(text)]) for text in "aba")
    masks.fill([before, costly, after], 266)
    before.take(id_of("c"))
    masks.fill([before, costly], 266)
    assert "too many expressions" in costly.error
    assert not before.error
    assert not after.error
    assert bounded.compile(constraint) is grammar
    assert (
        masks.fill([grammar.matcher()], 266).tolist()
        == masks.fill([compiler.compile(constraint).matcher()], 266).tolist()
    )


class Watched(Grammar):
    """Says when a mask of one of its answers is begun."""

    def __init__(self, make: Callable[[], LLMatcher]) -> None:
        super().__init__(make)
        self.begun = threading.Event()

    def matcher(self, ids: Sequence[int] = ()) -> Matcher:
        """See :meth:`Grammar.matcher`."""
        grammar = self

        class Begun(Matcher):
            """Says so."""

            def fill(self, masks: Any, row: int) -> None:
                grammar.begun.set()
                super().fill(masks, row)

        return Begun(self, self.root, self.root.deep_copy(), list(ids))


class Model:
    """In the place of a row's caches: its model computes nothing before the mask is begun."""

    def __init__(self, grammar: Watched) -> None:
        self.grammar = grammar
        self.steps = 0

    def step(self, _model: Any, _inputs: mx.array) -> mx.array:
        """The logits of a step."""
        assert self.grammar.begun.wait(WAIT_S)
        self.grammar.begun.clear()
        self.steps += 1
        return mx.zeros((1, 266))


def test_masks_are_filled_while_the_model_computes(compiler: Compiler) -> None:
    """Another thread does it, also where the model computes on the step's own: the model waits here until its mask is begun."""
    root = compiler.compile(Constraint(kind="regex", value="[ab]{3}")).root
    grammar = Watched(root.deep_copy)
    sampler = BatchSampler(266, str)
    sampler.add(0, GREEDY, [1], [], grammar)
    rows = Decoding(None, sampler, ahead=False)
    caches = Model(grammar)
    rows.join(Rows([Row(0, [1], 3, 0)], caches))  # type: ignore[arg-type]
    draws = []
    for _ in range(3):
        rows.launch()
        draws += rows.step()
    assert [draw.token for draw in draws] == [id_of("a")] * 3
    assert [draw.complete for draw in draws] == [False, False, True]
    assert caches.steps == 3


def test_masks_of_a_row_that_interrupts_a_step_leave_the_begun_ones(compiler: Compiler) -> None:
    """Those are taken afterwards, and not filled again: two threads may not ask one matcher."""
    root = compiler.compile(Constraint(kind="regex", value="[ab]{3}")).root
    grammar, other = Watched(root.deep_copy), Watched(root.deep_copy)
    filling = masks.Filling(266)
    begun, urgent = [grammar.matcher()], [other.matcher()]
    filling.begin(begun)
    assert filling.masks(urgent).shape == (1, 9)
    assert grammar.begun.wait(WAIT_S)
    grammar.begun.clear()
    assert (filling.masks(begun) == filling.masks(urgent)).all()
    assert not grammar.begun.is_set()


def test_what_a_lexer_remembers_of_others_fails_nobody(compiler: Compiler) -> None:
    """A grammar whose answers were in more states than a lexer may have goes on in another lexer, from where each answer is."""
    bounded = Compiler(lambda: compiler.tokens, limits=LLParserLimits(max_lexer_states=300))
    grammar = bounded.compile(Constraint(kind="regex", value="a[a-z]{150}|1[0-9]{150}|2[A-Z]{150}"))
    first = grammar.root
    matchers = [grammar.matcher() for _ in range(3)]
    for texts in zip("a" * 151, "1" * 151, "2" + "B" * 150, strict=True):
        masks.fill(matchers, 266)
        for matcher, text in zip(matchers, texts, strict=True):
            matcher.take(id_of(text))
    assert [matcher.error for matcher in matchers] == ["", "", ""]
    assert all(matcher.complete for matcher in matchers)
    assert grammar.root is not first


def id_of(character: str) -> int:
    """The id of a character's token: the first ones are the byte-level alphabet."""
    return ord(character) - ord("!")


@pytest.mark.parametrize(
    ("schema", "valid", "invalid"),
    [
        ({"type": "integer", "maximum": 123456789012345678}, 123456789012345664, 123456789012345679),
        ({"type": "integer", "minimum": 2**53 + 1}, 2**53 + 2, 2**53),
        ({"type": "integer", "exclusiveMaximum": -(2**53) - 1}, -(2**53) - 4, -(2**53)),
        ({"type": "integer", "enum": [2**60, 10**18]}, 2**60, 2**60 + 1),
    ],
    ids=str,
)
def test_no_number_beyond_a_bound_of_many_digits_is_an_answer(
    compiler: Compiler, schema: dict[str, Any], valid: int, invalid: int
) -> None:
    """llguidance reads bounds in double precision, so they are moved inwards to numbers that have no more digits than that."""
    for number, is_valid in ((valid, True), (invalid, False)):
        state = compiler.compile(of_schema(schema)).root.deep_copy()
        said = [id_of(character) for character in str(number)]
        assert (state.try_consume_tokens(said) == len(said) and state.is_accepting()) is is_valid


@pytest.mark.parametrize("schema", [{"const": 2**53 + 1}, {"enum": [1, 2**53 + 1]}], ids=str)
def test_an_identifier_that_would_become_another_is_not_forced(compiler: Compiler, schema: dict[str, Any]) -> None:
    """With ``strict`` it is an error; without, any integer is an answer, and a warning says so."""
    with pytest.raises(InvalidRequest, match="9007199254740993 has more digits than can be kept to; use a text"):
        compiler.compile(of_schema(schema))
    grammar = compiler.compile(of_schema(schema, strict=False))
    assert "9007199254740993" in grammar.warnings[0]
    state = grammar.root.deep_copy()
    said = [id_of(character) for character in "9007199254740993"]
    assert state.try_consume_tokens(said) == len(said)
    assert state.is_accepting()


def test_log_probabilities_are_of_what_the_grammar_allows(loop: Loop) -> None:
    """Where the grammar leaves two tokens, these two share all probability, and no other is listed."""
    sampling = Sampling(temperature=0.0, logprobs=True, top_logprobs=5)
    answer = ask(loop, "a or b", Constraint(kind="regex", value="[ab]c"), sampling=sampling)
    assert [len(logprob.top) for logprob in answer.logprobs] == [2, 1]
    assert sum(math.exp(value) for _, _, value in answer.logprobs[0].top) == pytest.approx(1.0)
    assert answer.logprobs[1].logprob == pytest.approx(0.0)


def test_bias_and_penalties_choose_among_what_is_allowed(loop: Loop) -> None:
    """A bias decides between allowed tokens and brings in no other; a penalty moves the answer off what it has said."""
    a, b, x = map(id_of, "abx")
    letters = Constraint(kind="regex", value="[ab]{6}")
    for favoured, text in ((a, "a" * 6), (b, "b" * 6)):
        sampling = Sampling(temperature=0.0, logit_bias={favoured: 50.0, x: 100.0})
        assert ask(loop, f"biased {text}", letters, sampling=sampling).text == text
    penalised = Sampling(temperature=0.0, logit_bias={a: 1.0}, frequency_penalty=2.0, presence_penalty=2.0)
    text = ask(loop, "penalised", Constraint(kind="regex", value="[ab]{40}"), sampling=penalised).text
    assert {*text} == {"a", "b"}
    repeated = Sampling(temperature=0.0, repetition_penalty=1e6, logit_bias={a: 30.0, b: 30.0})
    text = ask(loop, "repeated", Constraint(kind="regex", value="[ab]{2}"), sampling=repeated).text
    assert {*text} == {"a", "b"}


def test_a_seed_draws_the_same_in_any_company(loop: Loop) -> None:
    """Alone, and beside free and other constrained rows, the draws of a seed are the same tokens of the grammar."""
    sampling = Sampling(temperature=1.0, seed=7, top_p=0.9)
    constraint = Constraint(kind="regex", value="[a-z]{40}")
    alone = ask(loop, "seeded", constraint, sampling=sampling)
    loop.submit("free", 60)
    loop.submit("other", 60, constraint=Constraint(kind="regex", value="[0-9]{50}"), sampling=Sampling(temperature=1.0))
    loop.turn(5)
    again = ask(loop, "again", constraint, prompt="seeded", sampling=sampling)
    assert again.ids == alone.ids


def test_a_cached_prompt_changes_nothing(loop: Loop) -> None:
    """The second request with the same long prompt computes less of it, and has the same constrained answer."""
    prompt = "a long beginning that is kept " * 8
    constraint = of_schema(PERSON)
    first = ask(loop, "first", constraint, prompt=prompt)
    second = ask(loop, "second", constraint, prompt=prompt)
    assert first.finished is not None
    assert second.finished is not None
    assert second.finished.cached_tokens > first.finished.cached_tokens
    assert second.ids == first.ids


def test_what_is_too_large_is_refused_before_it_joins(compiler: Compiler) -> None:
    """A schema whose first step would cost too much is an error of its request; thousands of choices are none."""
    objects = [{"type": "object", "properties": {f"p{n}": {"type": "null"}}, "required": [f"p{n}"]} for n in range(100)]
    strict = Compiler(lambda: compiler.tokens, limits=LLParserLimits(step_max_items=100))
    with pytest.raises(InvalidRequest, match=r"response_format: .*Too many items"):
        strict.compile(of_schema({"anyOf": objects}))
    choices = [f"choice {number}" for number in range(4096)]
    assert compiler.compile(Constraint(kind="choice", value=json.dumps(choices))).matcher()
    assert compiler.compile(of_schema({"enum": choices})).matcher()


@pytest.mark.parametrize(
    ("count", "required", "error"),
    [(250, False, ""), (376, False, "Current row has 1503 items; max is 1500"), (1000, True, "")],
)
def test_properties_of_an_object(compiler: Compiler, count: int, required: bool, error: str) -> None:
    """As many as docs/structured.md says: all optional ones that may come next are places in the grammar."""
    names = [f"p{number:04d}" for number in range(count)]
    schema = {"type": "object", "properties": {name: {"type": "null"} for name in names}, "additionalProperties": False}
    matcher = compiler.compile(of_schema({**schema, "required": names if required else []})).matcher()
    for character in '{"p0000":null,"p0001":null':
        masks.fill([matcher], 266)
        matcher.take(id_of(character))
    assert error in matcher.error
    assert bool(matcher.error) == bool(error)


def test_noise_by_generated_schemas_is_valid(simple: Loop) -> None:
    """A model whose words are noise, drawn at random, answers each of two dozen schemas with what another validator accepts."""
    schemas = list(islice(generate(seed=0), 24))
    for number, schema in enumerate(schemas):
        sampling = Sampling(temperature=1.0, seed=number)
        simple.submit(f"schema {number}", 300, constraint=of_schema(schema), sampling=sampling)
    simple.finish(most_turns=1000)
    finished = 0
    for number, schema in enumerate(schemas):
        answer = simple.answers[f"schema {number}"]
        assert answer.failed is None
        if answer.reason == "stop":
            jsonschema.validate(json.loads(answer.text), schema)
            finished += 1
    assert finished > len(schemas) // 2


#: Expressions of Zod's, which look around.
ZOD_EMAIL = r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$"
ZOD_DURATION = r"^P(?:(\d+W)|(?!.*W)(?=\d|T\d)(\d+Y)?(\d+M)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+([.,]\d+)?S)?)?)$"
ZOD_HOST = (
    r"^(?=.{1,253}\.?$)[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
    r"(?:\.[a-zA-Z0-9](?:[-0-9a-zA-Z]{0,61}[0-9a-zA-Z])?)*\.?$"
)
BY_DAY = {"type": "object", "propertyNames": {"format": "date"}, "additionalProperties": {"type": "integer"}}


@pytest.mark.parametrize(
    ("schema", "text", "valid"),
    [
        (BY_DAY, '{"2024-02-29":1,"2023-12-31":2,"2023-04-30":3}', True),
        (BY_DAY, '{"2023-02-29":1}', False),
        (BY_DAY, '{"2023-04-31":1}', False),
        ({"type": "object", "propertyNames": {"maxLength": 2, "minLength": 1}}, '{"\u00e9\\n":1}', True),
        ({"type": "object", "propertyNames": {"maxLength": 2, "minLength": 1}}, '{"":1}', False),
        ({"type": "string", "pattern": ZOD_EMAIL}, '"a.b\'c+d@e-f.example"', True),
        ({"type": "string", "pattern": ZOD_EMAIL}, '"a..b@e.example"', False),
        ({"type": "string", "pattern": ZOD_DURATION, "format": "duration"}, '"P1Y2M3DT4H"', True),
        ({"type": "string", "pattern": ZOD_DURATION, "format": "duration"}, '"P1DT"', False),
        ({"type": "string", "pattern": ZOD_HOST}, '"a-1.example"', True),
        ({"type": "string", "pattern": ZOD_HOST}, '"a-.example"', False),
        (
            {"format": "uri", "minLength": 1, "maxLength": 2083, "pattern": "^(http|https)://[A-Za-z0-9]"},
            '"https://a.b/c"',
            True,
        ),
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, '{"a":1,"b":"x"}', True),
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, '{"\\u0061":"x"}', False),
        ({"type": "object", "patternProperties": {"^a": {"type": "integer"}}}, '{"\\u0061":"x"}', False),
        ({"type": "string", "format": "date"}, '"2024-02-29"', True),
        ({"type": "string", "format": "date"}, '"2023-02-29"', False),
        ({"type": "string", "format": "date"}, '"2023-02-28"', True),
        ({"type": "string", "format": "date"}, '"2023-12-31"', True),
        ({"type": "string", "format": "date-time"}, '"1900-02-29T00:00:00Z"', False),
        ({"type": "string", "format": "date-time"}, '"2000-02-29T00:00:00Z"', True),
        ({"type": "string", "format": "date-time"}, '"2024-02-29T10:59:60Z"', False),
        ({"type": "string", "format": "date-time"}, '"2024-02-29T10:59:59.123456+01:00"', True),
        ({"type": "string", "format": "time"}, '"10:59:60Z"', False),
        ({"type": "string", "format": "date"}, '"0000-01-01"', False),
        ({"type": "string", "format": "uuid4"}, '"9f2c52f4-9d0c-4c2e-8a3f-0d9b7f1f4a11"', True),
        ({"type": "string"}, '"line\\n\\"quoted\\" \\\\ \\t"', True),
    ],
    ids=str,
)
def test_the_language_is_that_of_the_schema(
    compiler: Compiler, simple: Loop, schema: Any, text: str, valid: bool
) -> None:
    """What JSON says in another way, and dates that there are not, are no way around a schema: jsonschema agrees."""
    ids = simple.runner.encode(Submit(task_id="", messages=None, prompt=text, max_tokens=1)).ids
    matcher = compiler.compile(of_schema(schema)).matcher(ids)
    assert bool(matcher.error) is not valid
    checker = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())
    if schema.get("format") not in ("date-time", "time", "uuid4"):  # which jsonschema alone does not check
        assert checker.is_valid(json.loads(text)) is valid

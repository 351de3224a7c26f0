"""The language of answers with tools: sound calls are in it, and nothing else is a call."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks.parts.scripted_model import byte_tokenizer
from benchmarks.parts.tiny_model import SPECIAL_TOKENS
from tasks.engine.constraint.compiler import NO_LEAD, Compiler
from tasks.engine.constraint.lead import Lead, lead_of
from tasks.engine.constraint.tokens import Tokens
from tasks.engine.text.control import added_tokens, special_tokens
from tasks.engine.text.formats import find_format
from tasks.engine.text.tokenizer import load_tokenizer
from tasks.engine.tools.form import find_form
from tasks.engine.tools.functions import Functions
from tasks.engine.tools.grammar import check_parameters, constraint_of, header_calls, unchecked
from tasks.engine.tools.region import Call
from tasks.engine.tools.syntaxes import SYNTAXES
from tasks.errors import InvalidRequest
from tasks.messages.constraint import Constraint
from tasks.messages.tools import Function, Tools

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.engine.tools.form import ToolForm

KINDS = ("json_tools", "mistral", "kimi_k2")
WEATHER = Function(
    name="weather",
    parameters={"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)
TOOLS = Tools(functions=(WEATHER, Function(name="ping")))


def call(kind: str, name: str, arguments: str) -> str:
    """A call as the grammar has it."""
    return {
        "json_tools": f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>',
        "mistral": f"[TOOL_CALLS]{name}[ARGS]{arguments}",
        "kimi_k2": f"<|tool_calls_section_begin|><|tool_call_begin|>functions.{name}:0<|tool_call_argument_begin|>{arguments}"
        "<|tool_call_end|><|tool_calls_section_end|>",
    }[kind]


class Model:
    """A vocabulary of bytes, with a token for each marker of a syntax."""

    def __init__(self, folder: Path, kind: str) -> None:
        markers = SYNTAXES[kind].markers if kind != "json_tools" else ()
        self.bytes = byte_tokenizer((*SPECIAL_TOKENS, *markers))
        self.bytes.save(str(folder / "tokenizer.json"))
        (folder / "tokenizer_config.json").write_text(
            '{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|im_end|>"}'
        )
        tokenizer = load_tokenizer(folder, trust_remote_code=False, ends=(), template=None)
        form = find_form(kind, special_tokens(tokenizer), {})
        assert form is not None
        self.form: ToolForm = form
        self.compiler = Compiler(lambda: Tokens(tokenizer, len(tokenizer), form.marks))

    def takes(
        self,
        tools: Tools,
        text: str,
        *,
        whole: bool = True,
        lead: Lead = NO_LEAD,
        otherwise: Constraint | None = None,
        checked: bool = True,
    ) -> bool:
        """Whether a text is an answer with these tools, or may begin one."""
        make = constraint_of if checked else unchecked
        constraint = make(self.form, tools, self.compiler.tokens.term, otherwise=otherwise is not None)
        assert constraint is not None
        ids = self.bytes.encode(text, add_special_tokens=False).ids
        matcher = self.compiler.compile(constraint, lead, otherwise).matcher(ids)
        return not matcher.error and (not whole or matcher.state.is_accepting())


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    return Model(tmp_path_factory.mktemp("tokenizer"), request.param)


def test_auto(model: Model) -> None:
    """Text, calls, and text around them; a call of another name, or with other arguments, is not begun."""
    kind = model.form.syntax.name
    sound = call(kind, "weather", '{"city": "O</tool_call>slo"}')
    assert model.takes(TOOLS, "Hello, {}")
    assert model.takes(TOOLS, sound)
    assert model.takes(TOOLS, f"Hm {sound}")
    assert model.takes(TOOLS, call(kind, "ping", "{}"))
    for wrong in (("launch", "{}"), ("weather", "{}"), ("weather", '{"city": 1}'), ("ping", '{"x": 1}')):
        assert not model.takes(TOOLS, call(kind, *wrong), whole=False)


def test_required(model: Model) -> None:
    """There is a call, and no other text; of one function alone, if one is named; and one alone, if so asked."""
    kind = model.form.syntax.name
    ping, weather = call(kind, "ping", "{}"), call(kind, "weather", '{"city": ""}')
    required = replace(TOOLS, choice="required")
    assert model.takes(required, ping)
    assert model.takes(required, ping + weather)
    assert not model.takes(required, "Hello", whole=False)
    named = replace(required, only="weather")
    assert model.takes(named, weather)
    assert not model.takes(named, ping, whole=False)
    assert not model.takes(replace(required, parallel=False), ping + weather, whole=False)


DATA = Constraint(kind="json_schema", value='{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}')


def test_calls_or_data(model: Model) -> None:
    """Beside a response_format the answer is calls or data, whole, and no other text; data where a call is required is none."""
    kind = model.form.syntax.name
    ping, wrong = call(kind, "ping", "{}"), call(kind, "weather", '{"city":1}')
    for whole in ('{"a":1}', f"\n{ping}", ping + ping):
        assert model.takes(TOOLS, whole, otherwise=DATA)
    for no in ("Hello", '{"a":"b"}', f"Hm {ping}", f'{{"a":1}}{ping}', wrong):
        assert not model.takes(TOOLS, no, whole=False, otherwise=DATA)
    required = replace(TOOLS, choice="required")
    assert model.takes(required, ping, otherwise=DATA)
    assert not model.takes(required, '{"a":1}', whole=False, otherwise=DATA)


def test_calls_that_are_checked_later(tmp_path: Path) -> None:
    """Of a syntax that no grammar describes, a call is begun, or data is answered; its tokens are allowed within it."""
    model = Model(tmp_path, "glm47")
    said = "<tool_call>ping<arg_key>a</arg_key><arg_value>{</arg_value></tool_call>"
    assert model.takes(TOOLS, f"Hm {said} Hm", checked=False)
    for otherwise in (None, DATA):
        required = replace(TOOLS, choice="required")
        assert model.takes(required, f"\n{said}", otherwise=otherwise, checked=False)
        assert not model.takes(required, "Hm", whole=False, otherwise=otherwise, checked=False)
    assert model.takes(TOOLS, '{"a":1}', otherwise=DATA, checked=False)
    assert not model.takes(TOOLS, "Hm", whole=False, otherwise=DATA, checked=False)


def test_calls_with_headers(tmp_path: Path) -> None:
    """A call of Harmony's is one of the functions', by its schema, behind a thought and words; or the answer is the final one."""
    names = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|constrain|>", "<|call|>", "<|return|>")
    encode = byte_tokenizer((*SPECIAL_TOKENS, *names))
    encode.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|return|>"}'
    )
    tokenizer = load_tokenizer(tmp_path, trust_remote_code=False, ends=(), template=None)
    form = find_format(added_tokens(tokenizer), "")
    compiler = Compiler(lambda: Tokens(tokenizer, len(tokenizer), form.marks))

    def takes(text: str, constraint: Constraint | None, budget: int | None = None, tools: Tools = TOOLS) -> bool:
        lead = lead_of(form, "<|start|>assistant", budget, header_calls(tools, checked=True))
        grammar = compiler.compile(constraint, lead)
        assert grammar.sound_calls
        matcher = grammar.matcher(encode.encode(text, add_special_tokens=False).ids)
        return not matcher.error and bool(matcher.state.is_accepting())

    thought = "<|channel|>analysis<|message|>so {<|end|><|start|>assistant"
    words = "<|channel|>commentary<|message|>I look it up.<|end|><|start|>assistant"
    sound = '<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city":"Oslo"}'
    final = '<|channel|>final<|message|>{"a":1}'
    for text in (sound, thought + sound, words + sound, thought + words + sound, final, thought + final):
        assert takes(text, DATA)
        assert takes(text, None)
    assert takes(" to=functions.ping<|channel|>commentary<|message|>{}", DATA)
    assert not takes(sound.replace("Oslo", 'Oslo","x":"'), DATA)
    assert not takes(sound.replace("weather", "launch"), DATA)
    assert not takes("<|channel|>final<|message|>Hm", DATA)
    assert takes("<|channel|>final<|message|>Hm", None)
    assert not takes(thought + sound, DATA, budget=0)
    required = replace(TOOLS, choice="required")
    assert takes(sound, None, tools=required)
    assert not takes(final, None, tools=required)


def test_a_call_behind_a_thought(model: Model) -> None:
    """Thought and call are one grammar: a call in the thought is a part of it, and behind it has to be a sound one."""
    kind = model.form.syntax.name
    lead = Lead("lead: thought\nthought[lazy]: /(?s:.*)<\\/think>/", required=True)
    wrong, ping = '{"name": "launch", "arguments": {}}', call(kind, "ping", "{}")
    required = replace(TOOLS, choice="required")
    assert model.takes(required, f"Hm {wrong}</think>{ping}", lead=lead)
    assert not model.takes(required, ping, lead=lead)
    assert not model.takes(required, f"Hm</think>{call(kind, 'launch', '{}')}", whole=False, lead=lead)


def test_what_cannot_be_enforced(model: Model) -> None:
    """A strict function is refused with the place and the remedy; another one is called, and its arguments are checked later."""
    odd = replace(WEATHER, parameters={**WEATHER.parameters, "not": {"required": ["town"]}})
    assert model.takes(Tools(functions=(odd,)), call(model.form.syntax.name, "weather", '{"city": ""}'))
    constraint = constraint_of(model.form, Tools(functions=(odd,)), model.compiler.tokens.term)
    assert constraint is not None
    assert not constraint.strict
    with pytest.raises(InvalidRequest, match="tools: the parameters of 'weather', which is strict: #: not: cannot be"):
        constraint_of(model.form, Tools(functions=(replace(odd, strict=True),)), model.compiler.tokens.term)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        (
            {"type": "object", "properties": {"a": {"$ref": "#/$defs/b"}}},
            "#/properties/a: $ref: '#/$defs/b' leads nowhere",
        ),
        (
            {"type": "object", "properties": {"a": False}, "required": ["a"]},
            "#: no value is valid (required property 'a'",
        ),
        (
            {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
            "#/properties/a: no value is valid (each",
        ),
        (
            {
                "properties": {"a": {"$ref": "#/$defs/d0"}},
                "$defs": {f"d{number}": {"items": {"$ref": f"#/$defs/d{number + 1}"}} for number in range(500)},
            },
            "#: its references lead more than 1000 levels deep",
        ),
    ],
    ids=str,
)
def test_a_function_that_can_never_be_called(parameters: dict[str, Any], said: str) -> None:
    """It is an error of the request, strict or not; every call would stay in the text."""
    with pytest.raises(InvalidRequest) as caught:
        check_parameters(Tools(functions=(WEATHER, Function(name="odd", parameters=parameters))))
    assert str(caught.value).startswith(f"tools: the parameters of 'odd': {said}")
    check_parameters(TOOLS)


@pytest.mark.parametrize(
    ("parameters", "right", "wrong"),
    [
        ({"type": "object", "properties": {}, "required": ["a"]}, '{"a": 1}', "{}"),
        ({"type": "object", "propertyNames": {"enum": ["a"]}, "properties": {}}, '{"a": 1}', '{"b": 1}'),
        (
            {"type": "object", "properties": {"a": {"type": "array", "items": [{"const": 1}]}}},
            '{"a": [1]}',
            '{"a": [2]}',
        ),
        (
            {
                "$schema": "http://json-schema.org/draft-04/schema#",
                "type": "object",
                "properties": {"a": {"type": "integer", "minimum": 1, "exclusiveMinimum": True}},
            },
            '{"a": 2}',
            '{"a": 1}',
        ),
    ],
    ids=str,
)
def test_schemas_of_older_dialects(model: Model, parameters: dict[str, Any], right: str, wrong: str) -> None:
    """The grammar and the check agree, where names are required that no property describes, and for older drafts."""
    function = Function(name="odd", parameters=parameters, strict=True)
    tools, kind = Tools(functions=(function,)), model.form.syntax.name
    check = Functions(tools)
    for arguments in (right, wrong):
        assert model.takes(tools, call(kind, "odd", arguments)) is (arguments == right)
        assert bool(check.problem(Call("odd", arguments))) is (arguments == wrong)


def test_other_syntaxes_are_free(tmp_path: Path) -> None:
    """Where arguments are no JSON, a call is checked once it is whole."""
    model = Model(tmp_path, "qwen3_coder")
    assert constraint_of(model.form, TOOLS, model.compiler.tokens.term) is None

"""Bodies whose fields are wrong, or another endpoint's: each is refused with the field's name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tasks.client.sending.request import prepare
from tasks.errors import GenerationError, InvalidRequest
from tasks.gateway.connection.refusal import refusal_of
from tasks.gateway.endpoints import chat, completions, responses
from tasks.gateway.endpoints.fields import as_called

if TYPE_CHECKING:
    from collections.abc import Callable


def reasoning(content: Any) -> dict[str, Any]:
    """A conversation with what a model has thought."""
    return {"input": [{"type": "reasoning", "summary": [], "content": content}, {"role": "user", "content": "hello"}]}


@pytest.mark.parametrize(
    ("parse", "body", "param"),
    [
        (responses.parse, reasoning(5), "input"),
        (responses.parse, reasoning("thought"), "input"),
        (responses.parse, reasoning([{"text": 1}]), "input"),
        (responses.parse, {"input": "hello", "tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        (responses.parse, {"input": "hello", "max_tokens": 5}, "max_tokens"),
        (responses.parse, {"input": "hello", "instructions": ["be brief"]}, "instructions"),
        (responses.parse, {"input": "hello", "messages": []}, "messages"),
        (completions.parse, {"prompt": "hello", "tools": []}, "tools"),
        (chat.parse, {"messages": None}, "messages"),
        (chat.parse, {"messages": [], "prompt": "hello"}, "prompt"),
    ],
)
def test_it_is_refused_with_its_name(parse: Callable[[Any, str], Any], body: dict[str, Any], param: str) -> None:
    """Nothing of a body is passed over, and nothing in it meets an error of the gateway's own."""
    with pytest.raises(GenerationError) as refused:
        parse(body, "fake:1")
    refusal = refusal_of(refused.value)
    assert (refusal.status, refusal.param) == (400, param)


@pytest.mark.parametrize(
    ("parse", "body", "said"),
    [
        (responses.parse, {"max_tokens": 5}, "max_tokens: not a field of this endpoint: use max_output_tokens"),
        (
            responses.parse,
            {"reasoning_effort": "low"},
            "reasoning_effort: not a field of this endpoint: use reasoning.effort",
        ),
        (responses.parse, {"response_format": {}}, "response_format: not a field of this endpoint: use text.format"),
        (
            responses.parse,
            {"logprobs": True},
            "logprobs: not a field of this endpoint: use top_logprobs, or leave it out",
        ),
        (
            completions.parse,
            {"messages": []},
            "messages: not a field of this endpoint: use prompt, or /v1/chat/completions",
        ),
        (chat.parse, {"prompt": "hello"}, "prompt: not a field of this endpoint: use messages"),
        (
            responses.parse,
            {"text": {"formt": {"type": "text"}}},
            "text.formt=<dict>: unknown field; did you mean format?",
        ),
        (responses.parse, {"text": {"a b": 1}}, "text.'a b'=1: unknown field; leave it out; there is format"),
        (
            responses.parse,
            {"reasoning": {"efort": "low"}},
            "reasoning.efort=<str>: unknown field; did you mean effort?",
        ),
        (responses.parse, {"reasoning": {"max_tokens": 9}}, "reasoning.max_tokens=9: unknown field; leave it out"),
        (
            responses.parse,
            {"text": {"format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {}}}}},
            'text.format: no schema; use {"type": "json_schema", "name": …, "schema": …}',
        ),
    ],
)
def test_what_to_send_instead_is_said(parse: Callable[[Any, str], Any], body: dict[str, Any], said: str) -> None:
    """A field, or a part of one, that another endpoint or nobody has is not passed over, and its own one is named."""
    with pytest.raises(InvalidRequest) as refused:
        parse({"input": "hello", **body}, "fake:1")
    assert str(refused.value).startswith(said), str(refused.value)


def test_parts_from_which_nothing_follows() -> None:
    """What OpenAI's SDK may send beside an effort and a format changes nothing; so does what is null."""
    parts = {"summary": "auto", "generate_summary": None, "context": "auto", "mode": "standard", "other": None}
    asked = {"input": "hello", "reasoning": {"effort": "low", **parts}, "text": {"format": None, "verbosity": "low"}}
    (values,) = responses.parse(asked, "fake:1").values
    (bare,) = responses.parse({"input": "hello", "reasoning": {"effort": "low"}}, "fake:1").values
    assert values == bare


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({"max_output_tokens": 0}, "max_output_tokens", "max_output_tokens=0: "),
        ({"input": [{"role": "user", "content": 5}]}, "input", "input: messages[0]['content']=5: "),
        (
            {"input": [{"type": None, "role": "nobody", "content": "a"}]},
            "input",
            "input: messages[0]['role']='nobody': ",
        ),
        ({"text": {"format": {"type": "xml"}}}, "text", "text.format['type']='xml': "),
        ({"reasoning": {"effort": "most"}}, "reasoning", "reasoning.effort='most': "),
        (
            {"text": {"format": {"type": "json_schema", "name": 5, "schema": {}}}},
            "text",
            (
                'text.format[\'name\']=5: input should be a valid string; use {"type": "json_object"}, or '
                '{"type": "json_schema", "name": …, "schema": …}'
            ),
        ),
        (
            {"tools": [{"type": "function", "name": "f", "strict": "x"}]},
            "tools",
            (
                "tools[0]['strict']=<str>: input should be a valid boolean, unable to interpret input; give a list of "
                '{"type": "function", "name": …, "parameters": {a JSON Schema}}'
            ),
        ),
        (
            {"tools": [{"type": "function", "name": "f", "parameters": {"type": 5}}]},
            "tools",
            "tools[0]['parameters']=<dict>: ",
        ),
        (
            {"tool_choice": "any"},
            "tool_choice",
            'tool_choice=\'any\': is not a choice; use "auto", "none", "required" or {"type": "function", "name": …}',
        ),
        ({"topP": 1}, "topP", "topP=1: unknown field; did you mean top_p?"),
    ],
)
def test_an_error_has_the_endpoint_s_own_names(body: dict[str, Any], param: str, said: str) -> None:
    """What ``generate`` says of a field is said of the field that the client has sent."""
    order = responses.parse({"input": "hello", **body}, "fake:1")
    with pytest.raises(InvalidRequest) as refused:
        prepare(None, order.values[0], None, {})
    refusal = refusal_of(as_called(refused.value, order.kind))
    assert (refusal.param, str(refusal).startswith(said)) == (param, True), str(refusal)
    assert as_called(refused.value, "chat") is refused.value


CALL = {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "a", "output": "1"}


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (
            {"role": "user", "content": "hello", "contents": "secret"},
            "contents=<str>: unknown field; did you mean content?",
        ),
        (
            {"role": "assistant", "content": "hi", "tool_calls": [CALL]},
            "tool_calls=<list>: unknown field; send each call as",
        ),
        ({**CALL, "argument": "{}"}, "argument=<str>: unknown field; did you mean arguments?"),
        ({**OUTPUT, "is_error": True}, "is_error=True: unknown field; leave it out"),
        (
            {"type": "reasoning", "content": [{"text": "a", "weight": 2}]},
            "content[0].weight=2: unknown field; leave it out",
        ),
        ({"type": ["message"]}, "type=['message']: use message, function_call"),
    ],
)
def test_an_item_loses_nothing_without_a_word(item: dict[str, Any], said: str) -> None:
    """A field that no model would get is an error with its place; text in it is not repeated."""
    with pytest.raises(InvalidRequest) as refused:
        responses.parse({"input": [{"role": "user", "content": "hello"}, item]}, "fake:1")
    assert str(refused.value).startswith(f"input[1].{said}"), str(refused.value)


def test_what_an_item_of_an_answer_has_besides_changes_nothing() -> None:
    """Ids, states, summaries and empty fields, as OpenAI's own answers have them, are dropped."""
    extras: dict[str, Any] = {"id": "x_1", "status": "completed", "name": None, "annotations": [], "created_by": "a"}
    items = [
        {
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "b"}],
            "encrypted_content": "c",
            "content": [],
        },
        {**CALL, **extras, "name": "f", "namespace": "d", "caller": {"type": "direct"}},
        {**OUTPUT, **extras},
        {
            "type": "message",
            "role": "assistant",
            "content": "hi",
            "phase": "final_answer",
            "id": "x_2",
            "status": "completed",
        },
    ]
    bare = [CALL, OUTPUT, {"role": "assistant", "content": "hi"}]
    (answered,), (asked,) = (responses.parse({"input": given}, "fake:1").values for given in (items, bare))
    assert answered["messages"] == asked["messages"]


@pytest.mark.parametrize("content", [None, [], [{"type": "reasoning_text", "text": ""}]])
def test_an_empty_thought_is_none(content: Any) -> None:
    """Reasoning items of models that hide what they think are left out."""
    (values,) = responses.parse(reasoning(content), "fake:1").values
    assert values["messages"] == [{"role": "user", "content": "hello"}]

"""What a producer checks of tools: one error that names the field, its value and the remedy."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.client.request.parameters import parse
from tasks.client.request.schema_form import fault_of_form
from tasks.client.request.tools import MAX_TOOLS, MAX_TOOLS_BYTES
from tasks.errors import InvalidRequest
from tasks.messages.constraint import Constraint

ASK = [{"role": "user", "content": "?"}]


def tool(name: str = "dip", **function: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **function}}


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"tool_choice": named("dive")}, "tool_choice names 'dive', and tools has 'dip': name one of them"),
        ({"tool_choice": "always"}, 'tool_choice=\'always\': is not a choice; use "auto", "none", "required" or'),
        ({"tools": [], "tool_choice": "required"}, "tool_choice='required' needs tools: give both"),
        ({"tools": [tool(), tool("b"), tool()]}, "tools[2] and tools[0] are both called 'dip': give each its own name"),
        ({"tools": [tool("a b")]}, "is not a function's name; use 1 to 64 letters"),
        ({"tools": [tool(parameters={"type": "array"})]}, "describe no object; use"),
        ({"tools": [tool(description="\ud800")]}, "tools: has '\\ud800', one half of a character; send whole text"),
        ({"tools": [tool(parameters={"properties": []})]}, "are no JSON Schema: #/properties is a list; use an object"),
        (
            {"tools": [tool(parameters={"properties": {"a": {"items": {"type": "str"}}}})]},
            "#/properties/a/items/type is another text; use string, number",
        ),
        (
            {"tools": [tool(parameters={"anyOf": [{"required": True}]})]},
            "#/anyOf/0/required is True; use a list of the",
        ),
        ({"tools": [tool(parameters={"items": [5]})]}, "#/items/0 is 5; a schema is an object"),
        ({"tools": [tool(parameters={"maximum": float("inf")})]}, "tools: has a number that is none; JSON has no NaN"),
        ({"tools": [{"type": "retrieval"}]}, "tools[0]['type']='retrieval'"),
        ({"tools": [tool(str(number)) for number in range(MAX_TOOLS + 1)]}, "give a list of"),
        ({"tools": [tool(description="x" * MAX_TOOLS_BYTES)]}, f"the limit is {MAX_TOOLS_BYTES}: send less"),
        ({"messages": None, "prompt": "?"}, "tools are for a chat template, and a prompt has none: send messages"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bad_input_is_one_error_at_the_producer(values: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse({"messages": ASK, "tools": [tool()], **values})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nulls_in_a_choice_say_nothing() -> None:
    """As an SDK's object is written down with all of its fields."""
    choice = {"type": "function", "function": {"name": "dip", "description": None}, "custom": None}
    assert parse({"messages": ASK, "tools": [tool()], "tool_choice": choice}).tool_choice.only == "dip"


def test_nulls_in_a_schema_say_nothing_where_they_are_no_value() -> None:
    """Clients write down keywords that nobody has set; a property may have a keyword's name, and a default may be null."""
    described = {"type": "string", "description": None, "enum": None, "default": None}
    schema = {
        "type": "object",
        "required": None,
        "properties": {"required": described, "list": {"items": {"title": None}, "anyOf": [{"minimum": None}]}},
    }
    called = parse({"messages": ASK, "tools": [tool(parameters=schema)]}).called()
    assert called is not None
    assert called.functions[0].parameters == {
        "type": "object",
        "properties": {"required": {"type": "string", "default": None}, "list": {"items": {}, "anyOf": [{}]}},
    }


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"properties": {"type": "array"}, "type": {"default": []}}},
        {"items": [{"type": "string"}], "exclusiveMinimum": True, "minimum": 0},
        {"type": ["object"], "additionalProperties": False, "not": {"required": []}, "minProperties": 1.0},
        {"$defs": {"a": True}, "enum": [], "x-order": [], "examples": {}},
    ],
    ids=str,
)
def test_the_form_of_a_schema_is_refused_where_each_dialect_refuses_it(schema: dict[str, Any]) -> None:
    """Names of properties are no keywords, and what one dialect allows is left to the worker."""
    assert not fault_of_form(schema)


def test_a_function_that_has_to_be_called_is_called_once() -> None:
    """Unless the request says otherwise; a model that may choose may call several."""
    asked: list[dict[str, Any]] = [
        {},
        {"tool_choice": "required"},
        {"tool_choice": named("dip")},
        {"tool_choice": named("dip"), "parallel_tool_calls": True},
    ]
    called = [parse({"messages": ASK, "tools": [tool()], **values}).called() for values in asked]
    assert [tools.parallel for tools in called if tools is not None] == [True, True, False, True]


def test_tools_beside_what_may_be_answered() -> None:
    """A model may call functions or answer by a schema, as in OpenAI's interface: a request says both."""
    asked = parse({"messages": ASK, "tools": [tool()], "response_format": {"type": "json_object"}})
    assert asked.called() is not None
    assert asked.constraint() == Constraint(kind="json_object")

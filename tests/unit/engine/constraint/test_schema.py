"""What of a JSON Schema cannot be enforced, and where it is."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from tasks.engine.constraint.endless import endless
from tasks.engine.constraint.equivalent import adjusted
from tasks.engine.constraint.schema import faults


def within(inner: Any) -> dict[str, Any]:
    """A schema with this one for a property that is required."""
    return {"type": "object", "properties": {"a/b": inner}, "required": ["a/b"]}


@pytest.mark.parametrize(
    ("inner", "said"),
    [
        ({"wibble": 1}, "wibble is not a keyword of JSON Schema; leave it out, or have its name begin with x-"),
        ({"x-guidance": {}}, "x-guidance is not a keyword"),
        ({"type": "string", "nullable": True}, 'use {"type": ["string", "null"]}'),
        ({"type": "string", "format": "phone"}, "format: 'phone' is not known; leave it out, or use pattern"),
        ({"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 3}]}, "oneOf: a value may be valid by two"),
        ({"not": {"type": "string"}}, "not: cannot be enforced; leave it out, or use strict: false"),
        (
            {"type": "array", "uniqueItems": True},
            "uniqueItems: cannot be enforced; leave it out (have a list in the place",
        ),
        ({"if": {}, "then": {}}, "if, then: cannot be enforced"),
        ({"type": "object", "propertyNames": {"pattern": "a", "maxLength": 2}}, "propertyNames: cannot be enforced"),
        ({"type": "object", "propertyNames": {"format": "date", "minLength": 1}}, "propertyNames: cannot be enforced"),
        ({"type": "object", "propertyNames": {"type": "integer"}}, "propertyNames: cannot be enforced"),
        ({"type": "array", "contains": {"type": "null"}}, "contains: cannot be enforced"),
        ({"type": "array", "unevaluatedItems": False}, "unevaluatedItems: cannot be enforced"),
        ({"type": "object", "unevaluatedProperties": False}, "unevaluatedProperties: cannot be enforced"),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired: cannot be enforced"),
        ({"type": "object", "dependentSchemas": {"a": {}}}, "dependentSchemas: cannot be enforced"),
        ({"type": "object", "dependencies": {"a": ["b"]}}, "dependencies: cannot be enforced"),
        ({"not": {}}, "no value is valid"),
        ({"$dynamicRef": "#node"}, "$dynamicRef: cannot be enforced"),
        ({"allOf": [{"type": "string"}, {"type": "null"}]}, "no value is valid"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "no value is valid"),
        ({"enum": []}, "no value is valid"),
        ({"type": "string", "pattern": "(?=a)"}, "pattern: '(?=a)' cannot be read"),
        ({"$ref": "#/$defs/missing"}, "$ref: '#/$defs/missing' leads nowhere; put what it names into $defs"),
        (
            {"$schema": "https://a.example/b.json"},
            "$schema: 'https://a.example/b.json' is not a known dialect; use",
        ),
        ({"$ref": "other.json"}, "$ref: 'other.json' leads to another document; put what it names into $defs"),
        ({"type": "object", "patternProperties": {"^(?!x)": {}}}, "patternProperties: '^(?!x)' cannot be read"),
        ({"type": "string", "maxLength": 10**18}, "its bounds are too large; use a smaller minLength or maxLength"),
        ({"const": "a\x01b"}, "const: has a control character, which no answer can have; leave it out"),
        ({"enum": ["a", {"b\x7f": [1]}]}, "enum: has a control character"),
        ({"const": 2**53 + 1}, "const: 9007199254740993 has more digits than can be kept to; use a text"),
        ({"enum": ["a", {"id": [-1175842156394905612]}]}, "enum: -1175842156394905612 has more digits"),
        ({"type": "string", "pattern": r"^a\x01?b$"}, "pattern: '^a\\\\x01?b$' has a control character"),
        ({"type": "string", "pattern": "^[\x1f]$"}, "has a control character"),
        ({"type": "object", "patternProperties": {r"^\u001b": {}}}, "has a control character"),
        ({"type": "object", "propertyNames": {"enum": [1]}}, "propertyNames: cannot be enforced"),
        ({"type": "text"}, "type: 'text' is not a type; the types are string, number, integer"),
        ({"type": "object", "minProperties": 2}, "minProperties: a name that comes twice counts once"),
        (
            {"type": "object", "patternProperties": {"^a": {}}, "additionalProperties": False, "minProperties": 2},
            "minProperties: a name that comes twice counts once",
        ),
        (
            {"type": "object", "propertyNames": {"pattern": "^a"}, "minProperties": 2},
            "minProperties: a name that comes",
        ),
        (
            {"type": "object", "properties": {"a": {}}, "additionalProperties": False, "minProperties": 2},
            "minProperties, maxProperties: cannot be enforced beside properties that need not be there",
        ),
    ],
    ids=str,
)
def test_a_fault_is_named_with_its_place(inner: Any, said: str) -> None:
    """The first fault has the pointer of the schema that it is in, with the characters that pointers escape, and a remedy."""
    fault = next(faults(within(inner), strict=True))
    assert fault.startswith("#/properties/a~1b: ")
    assert said in fault


@pytest.mark.parametrize(
    "inner",
    [
        {"type": "string", "title": "T", "description": "d", "default": "x", "examples": ["y"], "x-order": 1},
        {"type": "array", "items": {"type": "integer"}, "uniqueItems": False},
        {"oneOf": [{"type": "string"}, {"type": "null"}]},
        {"anyOf": [{"type": "string"}, {"enum": []}]},
        {"type": "object", "properties": {"wibble": {"const": {"nullable": True}}}},
        {"type": "string", "nullable": False},
        {"type": "string", "format": "date", "pattern": "^20"},
        {"type": "object", "minProperties": 1},
        {"type": "string", "format": "password"},
        {"type": "string", "pattern": r"^[^\x00-\x1f\[\]]+\\x01$"},
        {"enum": ['a\n\t\r\b\f"\\/']},
        {"type": "object", "propertyNames": {"enum": ["a", "b"]}, "additionalProperties": {"type": "integer"}},
        {"type": "object", "propertyNames": {"const": "a"}},
        {"type": "object", "propertyNames": {"type": "string"}, "properties": {"a": {}}},
        {"type": "object", "propertyNames": True, "patternProperties": {"^a": {}}},
        {"type": "object", "properties": {"a": {"not": {}}}},
        {"type": "string", "pattern": "^[cC][0-9a-z]{6,}$", "format": "cuid"},
        {"type": "number", "minimum": -1.7976931348623157e308, "exclusiveMaximum": 3.4028234663852886e38},
        {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1},
        {"type": "integer", "enum": [2**53, 2**60, -(10**18)]},
        {"$schema": "https://json-schema.org/draft-07/schema#", "type": "null"},
        {"$schema": "http://json-schema.org/draft/2020-12/schema", "type": "null"},
    ],
    ids=str,
)
def test_what_can_be_enforced_has_no_fault(inner: Any) -> None:
    """Annotations, defaults, alternatives of which one has no value, and names that are no keywords are not refused."""
    assert not list(faults(adjusted(within(inner)), strict=True))


def test_a_fault_in_what_is_referred_to_is_named_once_and_there() -> None:
    """Whoever refers to a faulty definition is not at fault, itself included."""
    node = {
        "type": "object",
        "properties": {"next": {"$ref": "#/$defs/Node"}, "id": {"type": "string", "format": "oid"}},
    }
    schema = {**within({"$ref": "#/$defs/Node"}), "$defs": {"Node": node}}
    for strict in (True, False):
        assert [fault.partition(": ")[0] for fault in faults(schema, strict=strict)] == ["#/$defs/Node/properties/id"]


def test_all_faults_are_named_where_none_is_an_error() -> None:
    """Without ``strict`` each is a warning, except for what has no value."""
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "string", "format": "oid"},
            "b": {"not": {"type": "null"}, "wibble": 1},
            "c": {"enum": []},
        },
    }
    found = list(faults(schema, strict=False))
    assert not any("strict: false" in fault for fault in found)  # which the request has
    places = sorted(fault.partition(": ")[0] for fault in found)
    assert places == ["#/properties/a", "#/properties/b", "#/properties/b"]


def test_a_large_schema_is_looked_at_for_a_bounded_time() -> None:
    """Each of a thousand parts reads all that it may refer to: what is found before that is too much is named, and that it is."""
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}, "description": "x" * 100_000}
    many = {f"p{number}": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]} for number in range(900)}
    schema = {
        "type": "object",
        "properties": {"first": {"type": "string", "format": "oid"}, **many},
        "$defs": {"Node": node},
    }
    found = list(faults(schema, strict=False))
    assert [fault.partition(": ")[0] for fault in found] == ["#/properties/first", "#"]
    assert "too large to say all" in found[-1]


def test_names_out_of_a_list_are_properties() -> None:
    """Also where the list is a definition, as pydantic has it of a dictionary whose keys are an enumeration."""
    schema = {
        "type": "object",
        "propertyNames": {"$ref": "#/$defs/Colour"},
        "additionalProperties": {"type": "integer"},
        "$defs": {"Colour": {"enum": ["red", "blue"]}},
    }
    told = adjusted(schema)
    assert told["properties"] == {"red": {"type": "integer"}, "blue": {"type": "integer"}}
    assert told["additionalProperties"] is False
    assert not list(faults(told, strict=True))


NODE = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}, "required": ["next"]}


@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ({"$ref": "#"}, "#"),
        ({"allOf": [{"type": "null"}, {"$ref": "#"}]}, "#/allOf/1"),
        ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, "#/items"),
        ({"type": "array", "items": [{"type": "null"}, {"$ref": "#"}], "minItems": 2}, "#/items/1"),
        ({**NODE, "$defs": {"Node": NODE}}, "#/$defs/Node/properties/next"),
        ({"type": "object", "required": ["a"], "additionalProperties": {"$ref": "#"}}, "#/additionalProperties"),
        (
            {"anyOf": [{"$ref": "#/$defs/A"}], "$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}}},
            "#/$defs/A",
        ),
        (
            {"$ref": "#/$defs/Node", "$defs": {"Node": {**NODE, "properties": {"next": {"type": ["null", "object"]}}}}},
            "",
        ),
        ({**NODE, "$defs": {"Node": {"anyOf": [NODE, {"type": "null"}]}}}, ""),
        ({"properties": {"a": {"$ref": "#/$defs/Node"}}, "$defs": {"Node": NODE}}, ""),
        ({"type": "array", "items": {"$ref": "#"}}, ""),
        ({"type": "object", "required": ["a"], "properties": {"a": {"enum": [1]}, "b": {"$ref": "#"}}}, ""),
        ({"$ref": "#there", "$defs": {"A": {"$anchor": "there"}}}, ""),
    ],
    ids=str,
)
def test_what_only_endless_values_would_satisfy(schema: dict[str, Any], pointer: str) -> None:
    """A schema that always needs another of its kind is found; one with an end, or with one that may be left out, is none."""
    assert endless(schema) == pointer


def entry(kind: str, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"kind": {"const": kind}, **more}, "required": ["kind"]}


EXPRESSION = {"oneOf": [{"$ref": "#/$defs/sum"}, {"$ref": "#/$defs/number"}], "discriminator": {"propertyName": "kind"}}


@pytest.mark.parametrize(
    ("alternatives", "exclusive"),
    [
        ([{"$ref": "#/$defs/sum"}, {"$ref": "#/$defs/number"}], True),
        ([{"$ref": "#/$defs/text"}, {"$ref": "#/$defs/amount"}, {"type": "null"}], True),
        ([{"const": 1}, {"const": 2}, {"const": True}], True),
        ([{"$ref": "#/$defs/sum"}, {"anyOf": [{"$ref": "#/$defs/number"}, {"type": "string"}]}], True),
        ([{"allOf": [entry("a"), {"type": "object"}]}, entry("b")], True),
        ([{**entry("a"), "required": []}, entry("b")], True),
        ([entry("a", own={}), {"type": "object", "properties": {}, "additionalProperties": False}], True),
        ([{"$ref": "#/$defs/sum"}, {"$ref": "#/$defs/sum"}], False),
        ([{"const": 1}, {"const": 1.0}], False),
        ([{"type": "integer"}, {"type": "number"}], False),
        ([{**entry("a"), "required": []}, {**entry("b"), "required": []}], False),
        ([{"properties": {"kind": {"const": kind}}, "required": ["kind"]} for kind in "ab"], False),
        ([{"$ref": "other.json"}, {"type": "null"}], False),
    ],
)
def test_alternatives_that_exclude_each_other(alternatives: list[Any], exclusive: bool) -> None:
    """``oneOf`` of them is ``anyOf``, also where references lead to them; of others it stays what it is."""
    schema = {
        "oneOf": alternatives,
        "$defs": {
            "sum": entry("sum", left=EXPRESSION, right=EXPRESSION),
            "number": entry("number"),
            "text": {"type": "string"},
            "amount": {"type": "number"},
        },
    }
    told = adjusted(deepcopy(schema))
    assert ("anyOf" in told) is exclusive
    assert bool(list(faults(schema, strict=True))) is not exclusive


def test_a_fault_within_alternatives_has_the_place_that_the_author_knows() -> None:
    """Its pointer names ``oneOf``, whatever becomes of it."""
    found = list(faults({"oneOf": [{"type": "null"}, {"type": "string", "format": "phone"}]}, strict=True))
    assert found[0].startswith("#/oneOf/1: format: 'phone'")

"""What of a JSON Schema cannot be enforced, and where it is."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.engine.constraint.schema import adjusted, faults


def within(inner: Any) -> dict[str, Any]:
    """A schema with this one for a property that is required."""
    return {"type": "object", "properties": {"a/b": inner}, "required": ["a/b"]}


@pytest.mark.parametrize(
    ("inner", "said"),
    [
        ({"wibble": 1}, "wibble is no keyword of JSON Schema; leave it out"),
        ({"x-guidance": {}}, "x-guidance is no keyword"),
        ({"type": "string", "nullable": True}, 'use {"type": ["string", "null"]}'),
        ({"type": "string", "format": "phone"}, "format: 'phone' is not known; leave it out, or use pattern"),
        ({"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 3}]}, "oneOf: a value may be valid by two"),
        ({"not": {"type": "string"}}, "not: cannot be enforced; leave it out, or use strict: false"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems: cannot be enforced"),
        ({"if": {}, "then": {}}, "if, then: cannot be enforced"),
        ({"type": "object", "propertyNames": {}}, "propertyNames: cannot be enforced"),
        ({"type": "array", "contains": {"type": "null"}}, "contains: cannot be enforced"),
        ({"type": "array", "unevaluatedItems": False}, "unevaluatedItems: cannot be enforced"),
        ({"type": "object", "unevaluatedProperties": False}, "unevaluatedProperties: cannot be enforced"),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired: cannot be enforced"),
        ({"type": "object", "dependentSchemas": {"a": {}}}, "dependentSchemas: cannot be enforced"),
        ({"type": "object", "dependencies": {"a": ["b"]}}, "dependencies: cannot be enforced"),
        ({"$dynamicRef": "#node"}, "$dynamicRef: cannot be enforced"),
        ({"allOf": [{"type": "string"}, {"type": "null"}]}, "no value is valid"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "no value is valid"),
        ({"enum": []}, "no value is valid"),
        ({"type": "string", "pattern": "(?=a)"}, "pattern: '(?=a)' cannot be read"),
        ({"$ref": "#/$defs/missing"}, "does not exist"),
        ({"type": "text"}, "Invalid type: text"),
        ({"type": "object", "minProperties": 2}, "minProperties: a name that comes twice counts once"),
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
        assert [each.partition(": ")[0] for each in faults(schema, strict=strict)] == ["#/$defs/Node/properties/id"]


def test_all_faults_are_named_where_none_is_an_error() -> None:
    """Without ``strict`` each is a warning, except for what has no value."""
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string", "format": "oid"}, "b": {"not": {}, "wibble": 1}, "c": {"enum": []}},
    }
    places = sorted(each.partition(": ")[0] for each in faults(schema, strict=False))
    assert places == ["#/properties/a", "#/properties/b", "#/properties/b"]

"""Where references lead: to what llguidance takes them to."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest

from tasks.engine.constraint.endless import endless
from tasks.engine.constraint.equivalent import adjusted
from tasks.engine.constraint.references import References
from tasks.engine.constraint.schema import faults

THERE = {"const": "there"}
ROOT, PART = "https://a.example/root", "https://a.example/part"
#: A schema whose property ``it`` refers to what is ``THERE``.
WAYS: dict[str, dict[str, Any]] = {
    "a pointer": {"properties": {"it": {"$ref": "#/$defs/a"}}, "$defs": {"a": THERE}},
    "a pointer into a list": {"properties": {"it": {"$ref": "#/allOf/1"}}, "allOf": [{}, THERE]},
    "escaped characters": {"properties": {"it": {"$ref": "#/$defs/a~1b~0c"}}, "$defs": {"a/b~c": THERE}},
    "percent-encoded characters": {"properties": {"it": {"$ref": "#/%24defs/a%20%C3%A9"}}, "$defs": {"a é": THERE}},
    "an anchor": {"properties": {"it": {"$ref": "#a"}}, "$defs": {"x": {**THERE, "$anchor": "a"}}},
    "an anchor of draft 7": {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "properties": {"it": {"$ref": "#a"}},
        "definitions": {"x": {**THERE, "$id": "#a"}},
    },
    "an anchor of draft 4": {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "properties": {"it": {"$ref": "#a"}},
        "definitions": {"x": {**THERE, "id": "#a"}},
    },
    "an address": {"properties": {"it": {"$ref": PART}}, "$defs": {"x": {**THERE, "$id": PART}}},
    "an address without a base": {"properties": {"it": {"$ref": "part"}}, "$defs": {"x": {**THERE, "$id": "part"}}},
    "a relative reference": {
        "$id": ROOT,
        "properties": {"it": {"$ref": "part"}},
        "$defs": {"x": {**THERE, "$id": PART}},
    },
    "a relative address": {
        "$id": ROOT,
        "properties": {"it": {"$ref": PART}},
        "$defs": {"x": {**THERE, "$id": "part"}},
    },
    "an address and a pointer": {
        "$id": ROOT,
        "properties": {"it": {"$ref": "part#/$defs/a"}},
        "$defs": {"x": {"$id": PART, "$defs": {"a": THERE}}},
    },
    "the own address": {"$id": ROOT, "properties": {"it": {"$ref": "root#/$defs/a"}}, "$defs": {"a": THERE}},
}


@pytest.mark.parametrize("way", WAYS)
def test_what_a_reference_leads_to(way: str) -> None:
    """Here as with llguidance, which refuses what leads nowhere."""
    schema = deepcopy(WAYS[way])
    found = References(schema).target(schema["properties"]["it"])
    assert found.items() >= THERE.items()
    assert not list(faults(schema, strict=True))


@pytest.mark.parametrize(
    "reference", ["#/$defs/b", "#b", "https://b.example/x", "http://[", "#/allOf/1", "#/allOf/x", 1]
)
def test_a_reference_that_leads_nowhere(reference: Any) -> None:
    """Nothing is known of it."""
    schema = {"$ref": reference, "$defs": {"a": {}}, "allOf": [{}]}
    references = References(schema)
    assert references.target(schema) is None
    assert references.targets(schema) == []


def test_a_part_with_an_address_of_its_own() -> None:
    """A pointer in it begins there; a draft that does not know addresses has it begin in the whole, so that both are possible."""
    inner = {"$id": PART, "$ref": "#/$defs/a", "$defs": {"a": {"const": "inner"}}}
    schema = {"$defs": {"a": {"const": "outer"}, "part": inner}}
    references = References(schema)
    assert references.targets(inner) == [{"const": "inner"}, {"const": "outer"}]
    assert references.target(inner) is None


@pytest.mark.parametrize("way", ["percent-encoded characters", "an anchor", "a relative reference"])
def test_alternatives_that_exclude_each_other(way: str) -> None:
    """However they are named: they can be any of them, and what llguidance could not keep to is kept to."""
    schema = deepcopy(WAYS[way])
    schema["oneOf"] = [schema.pop("properties")["it"], {"const": "elsewhere"}]
    assert "anyOf" in adjusted(json.loads(json.dumps(schema)))
    assert not list(faults(schema, strict=True))


def test_endless_by_other_names() -> None:
    """A schema that needs itself is found by any name that it has."""
    assert endless({"$id": ROOT, "type": "array", "minItems": 1, "items": {"$ref": "root"}}) == "#/items"
    assert endless({"$ref": "#a", "$defs": {"x": {"$anchor": "a", "$ref": "#/%24defs/x"}}}) == "#/$defs/x"

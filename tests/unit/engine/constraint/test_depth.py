"""How deep a schema or a grammar leads: what would exhaust a stack is refused before anything follows it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tasks.engine.constraint.depth import excess, has_deep_rules, is_deep
from tasks.engine.constraint.exclusive import Comparison
from tasks.engine.constraint.references import References


def chain(links: int, link: Any) -> dict[str, Any]:
    """Definitions that each refer to the next one."""
    definitions = {f"d{number}": link(f"d{number + 1}") for number in range(links)}
    return {**link("d0"), "$defs": {**definitions, f"d{links}": {"type": "null"}}}


LINKS = {
    "reference": lambda name: {"$ref": f"#/$defs/{name}"},
    "property": lambda name: {"properties": {"next": {"$ref": f"#/$defs/{name}"}}},
    "list": lambda name: {"allOf": [{"$ref": f"#/$defs/{name}"}]},
}


@pytest.mark.parametrize("link", LINKS)
def test_references_in_a_row(link: str) -> None:
    """Each link counts; those that lead back, or to what was there before, do not."""
    assert is_deep(References(chain(10, LINKS[link])), most=9)
    assert not is_deep(References(chain(10, LINKS[link])), most=40)
    round_about = chain(10, LINKS[link])
    round_about["$defs"]["d10"] = {"$ref": "#/$defs/d0"}
    assert not is_deep(References(round_about), most=40)


@pytest.mark.parametrize("name", ["anchor", "id", "address", "document", "percent"])
def test_references_by_other_names(name: str) -> None:
    """An anchor, an id and the document's own id lead as far as a pointer, which may be percent-encoded."""
    named = {"anchor": "$anchor", "id": "$id", "address": "$id"}.get(name, "title")
    document = "https://a.example/s#/$defs/d{}"
    to = {
        "anchor": "#d{}",
        "id": "d{}",
        "address": "https://a.example/d{}",
        "document": document,
        "percent": "#/%24defs/d{}",
    }[name]
    definitions = {f"d{number}": {named: f"d{number}", "$ref": to.format(number + 1)} for number in range(10)}
    schema = {"$id": "https://a.example/s", "$ref": to.format(0), "$defs": definitions}
    assert is_deep(References(schema), most=9)
    assert not is_deep(References(schema), most=40)


def test_rules_of_a_grammar() -> None:
    """Rules count, and groups in each other; texts, expressions and comments have none, and a schema is looked at by itself."""
    rules = "\n".join(f'r{number}: ("a" [r{number + 1}])' for number in range(10))
    assert has_deep_rules(f"start: r0\n{rules}", most=30)
    assert not has_deep_rules(f"start: r0\n{rules}", most=31)
    literal = 'start: "((((((" | /((((a))))/ // (((((('
    assert not has_deep_rules(literal, most=1)
    schema = json.dumps(chain(500, LINKS["property"]))
    assert has_deep_rules(f"start: %json {schema}")
    assert not has_deep_rules(f"start: %json {json.dumps(chain(9, LINKS['property']))} (x)\nx: y", most=4)
    assert not has_deep_rules("start: %json {")


def test_expressions_that_one_text_has_to_match() -> None:
    """They count where they are in lists and behind references; those of other texts do not."""
    several = [{"pattern": f"a{number}"} for number in range(4)]
    some = {"type": "string", "allOf": several, "$ref": "#/$defs/more"}
    schema = {"properties": {"b": some}, "$defs": {"more": {"pattern": "b", "allOf": [*several, {"pattern": "c"}]}}}
    assert excess(json.loads(json.dumps(schema))).startswith(
        "#/properties/b: pattern: a text has to match more than 8 expressions"
    )
    assert not excess({"anyOf": [{"allOf": several}, {"allOf": several}, {"allOf": several}]})


def test_schemas_are_compared_for_a_bounded_time() -> None:
    """What is in alternatives multiplies with each level: where that is too much, nobody knows that they exclude each other."""
    alternatives = [
        {"type": "object", "properties": {"kind": {"const": kind}, "other": {}}, "required": ["other", "kind"]}
        for kind in "abcdefgh"
    ]
    assert Comparison(References({})).exclude_each_other(alternatives)
    assert not Comparison(References({}), most=50).exclude_each_other(alternatives)

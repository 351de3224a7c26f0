"""Schemas that no value of finite size is valid by: one that has to have another of its kind in it, and so on for ever.

llguidance compiles them, and a model would write on until it is cut off.
"""

from __future__ import annotations

from typing import Any

from tasks.engine.constraint.parts import parts
from tasks.engine.constraint.references import References

#: What is wrong with one.
ENDLESS = "no value is valid (each has to have another of its kind in it); change the schema"
_SCALARS = ("string", "number", "integer", "boolean", "null")


def endless(schema: dict[str, Any]) -> str:
    """The JSON pointer of the first such schema among those that the whole needs; empty where there is a value."""
    placed = list(parts(schema, ""))
    if not any("$ref" in part for _, part in placed):
        return ""
    ends = _Ends(schema, {pointer or "#": part for pointer, part in placed})
    if ends.of(schema):
        return ""
    return next(pointer for pointer, part in ends.placed.items() if not ends.of(part))


class _Ends:
    """The parts of a schema that have a finite value: all that can be shown to, from the innermost on."""

    def __init__(self, root: dict[str, Any], placed: dict[str, dict[str, Any]]) -> None:
        self._references = References(root)
        self._parts = set(map(id, placed.values()))
        self.placed = placed
        self._known: set[int] = set()
        while found := {id(part) for part in placed.values() if id(part) not in self._known and self._shown(part)}:
            self._known |= found

    def of(self, part: Any) -> bool:
        """Whether a value is known. What is no schema of its own here is not looked into."""
        return id(part) not in self._parts or id(part) in self._known

    def _shown(self, part: dict[str, Any]) -> bool:
        if "const" in part or "enum" in part:
            return True
        everyone = [self._references.target(part)] if "$ref" in part else []
        everyone += _list(part, "allOf")
        anyone = [_list(part, name) for name in ("anyOf", "oneOf") if _list(part, name)]
        alternatives = all(any(map(self.of, choices)) for choices in anyone)
        return all(map(self.of, everyone)) and alternatives and self._has_content(part)

    def _has_content(self, part: dict[str, Any]) -> bool:
        """Whether a value is known by what the schema says of types."""
        given = part.get("type", "null")
        kinds = given if isinstance(given, list) else [given]
        if any(kind in _SCALARS for kind in kinds):
            return True
        return ("object" in kinds and all(map(self.of, _required(part)))) or (
            "array" in kinds and all(map(self.of, _first_items(part)))
        )


def _list(part: dict[str, Any], name: str) -> list[Any]:
    found = part.get(name)
    return found if isinstance(found, list) else []


def _required(part: dict[str, Any]) -> list[Any]:
    """The schemas of the properties that an object has to have."""
    properties = part.get("properties", {})
    if not isinstance(properties, dict):
        return []
    other = True if "patternProperties" in part else part.get("additionalProperties", True)
    return [properties.get(name, other) for name in _list(part, "required") if isinstance(name, str)]


def _first_items(part: dict[str, Any]) -> list[Any]:
    """The schemas of the items that an array has to have."""
    least = part.get("minItems", 0)
    if not isinstance(least, int) or least < 1:
        return []
    first, other = _list(part, "prefixItems"), part.get("items", True)
    if isinstance(other, list):  # until draft 2019-09
        first, other = other, part.get("additionalItems", True)
    return first[:least] + ([other] if least > len(first) else [])

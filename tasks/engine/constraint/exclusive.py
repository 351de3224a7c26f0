"""Finds schemas that exclude each other: ``oneOf`` of such schemas means the same as ``anyOf``.

llguidance knows that of some schemas, and never of references, which is what pydantic and OpenAPI have in a ``oneOf``.
"""

from __future__ import annotations

from itertools import combinations, islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.engine.constraint.references import References

_KINDS = frozenset({"array", "boolean", "null", "number", "object", "string"})
#: The depth of references and properties that is looked at.
_MOST_DEPTH = 8
#: Each alternative is compared with each other one.
_MOST_ALTERNATIVES = 200
#: The most schemas in one that are compared, and the most that one refers to that are looked at: they multiply with each level.
_MOST_COMPARED = 200_000
_MOST_PARTS = 500


class Comparison:
    """Tells which schemas exclude each other, until it has compared too much of one schema.

    Args:
        references: of the whole schema.
    """

    def __init__(self, references: References, *, most: int = _MOST_COMPARED) -> None:
        self._references = references
        self._left = most

    def exclude_each_other(self, alternatives: list[Any]) -> bool:
        """Whether every value is valid by one of these schemas at most, as far as can be told."""
        return len(alternatives) <= _MOST_ALTERNATIVES and all(
            self._disjoint([first], [second], _MOST_DEPTH) for first, second in combinations(alternatives, 2)
        )

    def _disjoint(self, some: list[Any], others: list[Any], depth: int) -> bool:
        """Whether no value is valid by all of these schemas."""
        if not depth or self._left <= 0:
            return False
        left, right = (_Demands(schemas, self._references, depth) for schemas in (some, others))
        self._left -= 1 + left.size + right.size
        if not left.kinds & right.kinds or not left.may_be(right) or not right.may_be(left):
            return True
        if any(self._all_disjoint(choices, others, depth) for choices in left.choices):
            return True
        if any(self._all_disjoint(choices, some, depth) for choices in right.choices):
            return True
        if left.kinds & right.kinds != {"object"}:
            return False
        return any(
            left.bars(name)
            or right.bars(name)
            or self._disjoint(left.properties.get(name, []), right.properties.get(name, []), depth - 1)
            for name in left.required | right.required
        )

    def _all_disjoint(self, choices: list[Any], others: list[Any], depth: int) -> bool:
        return bool(choices) and all(self._disjoint([choice], others, depth - 1) for choice in choices)


class _Demands:
    """The demands that some schemas make on a value; references lead to others."""

    def __init__(self, schemas: list[Any], references: References, depth: int) -> None:
        self.kinds = _KINDS
        #: The values that it may be, if these are listed; names; lists of which it has to be valid by one.
        self.values: frozenset[Any] | None = None
        self.required: set[str] = set()
        self.properties: dict[str, list[Any]] = {}
        self.choices: list[list[Any]] = []
        self._names: list[frozenset[str]] = []
        for schema in schemas:
            for part in islice(_together(schema, references, depth), _MOST_PARTS):
                self._add(part)

    @property
    def size(self) -> int:
        """The number of demands."""
        return len(self.properties) + len(self.values or ()) + sum(map(len, self.choices))

    def may_be(self, other: _Demands) -> bool:
        """Whether one of its values is one of the other's, or of its kinds."""
        if self.values is None:
            return True
        return any(value[0] in other.kinds and (other.values is None or value in other.values) for value in self.values)

    def bars(self, name: str) -> bool:
        """Whether an object may not have a property of this name."""
        return any(name not in names for names in self._names)

    def _add(self, part: Any) -> None:
        if not isinstance(part, dict):
            self.kinds = self.kinds if part is True else frozenset()
            return
        if "type" in part:
            given = part["type"] if isinstance(part["type"], list) else [part["type"]]
            self.kinds &= {"number" if kind == "integer" else kind for kind in given}
        for listed in ([part["const"]] if "const" in part else None, part.get("enum")):
            if isinstance(listed, list):
                values = frozenset(map(_key, listed))
                self.values = values if self.values is None else self.values & values
        self.choices += [part[name] for name in ("anyOf", "oneOf") if isinstance(part.get(name), list)]
        self.required |= {name for name in _list(part.get("required")) if isinstance(name, str)}
        properties = part.get("properties", {})
        if isinstance(properties, dict):
            for name, inner in properties.items():
                self.properties.setdefault(name, []).append(inner)
            if part.get("additionalProperties") is False and "patternProperties" not in part:
                self._names.append(frozenset(properties))


def _together(schema: Any, references: References, depth: int) -> Iterator[Any]:
    """The schemas that a value has to be valid by, all of them, to be valid by this one."""
    if not isinstance(schema, dict) or not depth:
        if isinstance(schema, bool):
            yield schema
        return
    if "$ref" in schema:  # what stands beside it means nothing in older drafts
        yield from _together(references.target(schema), references, depth - 1)
        return
    yield schema
    for inner in _list(schema.get("allOf")):
        yield from _together(inner, references, depth - 1)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _key(value: Any) -> tuple[str, Any]:
    """A value as JSON tells values apart, with its kind: 1 is 1.0, and not true."""
    match value:
        case None:
            return "null", None
        case bool():
            return "boolean", value
        case int() | float():
            return "number", value
        case str():
            return "string", value
        case list():
            return "array", tuple(map(_key, value))
    return "object", frozenset((name, _key(inner)) for name, inner in value.items())

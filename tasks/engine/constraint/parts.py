"""The schemas that a JSON Schema consists of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Keywords whose value is a schema, a list of schemas, or an object of schemas.
# fmt: off
ONE = (
    "additionalItems", "additionalProperties", "contains", "contentSchema", "else", "if", "items", "not", "propertyNames",
    "then", "unevaluatedItems", "unevaluatedProperties",
)
# fmt: on
LISTS = ("allOf", "anyOf", "items", "oneOf", "prefixItems")
MAPS = ("$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties")
#: Where references lead, as a rule.
SHARED = ("$schema", "$defs", "definitions")


def parts(schema: Any, pointer: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each schema in a schema with its pointer, the innermost first."""
    if not isinstance(schema, dict):
        return
    # What others refer to comes first: a fault in it is theirs too.
    for name, value in sorted(schema.items(), key=lambda item: item[0] not in SHARED):
        here = f"{pointer or '#'}/{_escaped(name)}"
        if name in MAPS and isinstance(value, dict):
            for key, inner in value.items():
                yield from parts(inner, f"{here}/{_escaped(key)}")
        elif name in LISTS and isinstance(value, list):
            for place, inner in enumerate(value):
                yield from parts(inner, f"{here}/{place}")
        elif name in ONE:
            yield from parts(value, here)
    yield pointer, schema


def require(part: dict[str, Any], other: Any) -> None:
    """Have a value of a schema be valid by another one as well; the schema is changed in place."""
    others = part.get("allOf", [])
    if isinstance(others, list) and other not in others:
        part["allOf"] = [*others, other]


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")

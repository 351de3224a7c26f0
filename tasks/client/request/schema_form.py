"""The form of a JSON Schema: keywords whose value is of a wrong type make it none.

A worker reads the whole schema, by its dialect. What every dialect forbids is found where a request is made: PHP writes ``[]``
for an object that has nothing in it, and people write ``"type": "str"``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TYPES = ("string", "number", "integer", "boolean", "null", "array", "object")
#: Keywords of all dialects whose value is an object of schemas, a list of schemas, or one schema.
_MAPS = ("definitions", "patternProperties", "properties")
_LISTS = ("allOf", "anyOf", "oneOf")
_ONE = ("additionalProperties", "items", "not")
#: Keywords for which ``null`` is a value, and no word for one that is left out.
_VALUES = ("const", "default")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_number(value) and value >= 0 and value == int(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_type(value: Any) -> bool:
    return value in TYPES if isinstance(value, str) else _are_texts(value) and bool(value) and set(value) <= set(TYPES)


#: What the value of a keyword has to be, as a check and in words.
_FORMS: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(_MAPS, (lambda value: isinstance(value, dict), "use an object, {} where it is empty")),
    **dict.fromkeys(_LISTS, (lambda value: isinstance(value, list) and bool(value), "use a list of schemas")),
    **dict.fromkeys(
        ("maxItems", "maxLength", "maxProperties", "minItems", "minLength", "minProperties"),
        (_is_count, "use a whole number from 0"),
    ),
    **dict.fromkeys(("maximum", "minimum"), (_is_number, "use a number")),
    **dict.fromkeys(("$ref", "description", "format", "pattern", "title"), (_is_text, "use a text")),
    "enum": (lambda value: isinstance(value, list), "use a list of the values"),
    "multipleOf": (lambda value: _is_number(value) and value > 0, "use a number above 0"),
    "required": (_are_texts, "use a list of the properties' names"),
    "type": (_is_type, f"use {', '.join(TYPES)}, or a list of them"),
    "uniqueItems": (lambda value: isinstance(value, bool), "use true or false"),
}


def fault_of_form(schema: Any) -> str:
    """Where a schema is none by any dialect, why, and what to do; empty where nothing was found."""
    stack = [("#", schema)]
    while stack:
        where, part = stack.pop()
        if isinstance(part, bool):
            continue
        if not isinstance(part, dict):
            return f"{where} is {_shown(part)}; a schema is an object"
        for name, value in part.items():
            fits, remedy = _FORMS.get(name, (lambda _: True, ""))
            if not fits(value):
                return f"{where}/{name} is {_shown(value)}; {remedy}, or leave it out"
        stack += _inner(where, part)
    return ""


def without_nulls(schema: Any) -> Any:
    """The schema without keywords that are ``null``, as clients write what they leave out."""
    if not isinstance(schema, dict):
        return schema
    kept = {name: value for name, value in schema.items() if value is not None or name in _VALUES}
    for name in (*_MAPS, "$defs"):
        if isinstance(kept.get(name), dict):
            kept[name] = {key: without_nulls(value) for key, value in kept[name].items()}
    for name in (*_LISTS, "items", "prefixItems"):
        if isinstance(kept.get(name), list):
            kept[name] = [without_nulls(value) for value in kept[name]]
    return kept | {name: without_nulls(kept[name]) for name in _ONE if isinstance(kept.get(name), dict)}


def _inner(where: str, part: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in part.items():
        if name in _MAPS:
            yield from ((f"{where}/{name}/{key}", inner) for key, inner in value.items())
        elif name in _LISTS or (name == "items" and isinstance(value, list)):
            yield from ((f"{where}/{name}/{number}", inner) for number, inner in enumerate(value))
        elif name in _ONE:
            yield f"{where}/{name}", value


def _shown(value: Any) -> str:
    """The kind of a value: a text in it may be somebody's words."""
    kinds = {list: "a list", dict: "an object", str: "another text", type(None): "null"}
    return kinds.get(type(value), f"{value!r:.60}")

"""Finds the parts of a JSON Schema that cannot be enforced, by JSON pointer: llguidance names no place, and skips some."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llguidance import LLMatcher

from tasks.engine.constraint.control import control_characters
from tasks.engine.constraint.equivalent import adjusted
from tasks.engine.constraint.grammar import LIMITS, looks_around
from tasks.engine.constraint.parts import LISTS, MAPS, ONE, SHARED, parts
from tasks.engine.constraint.whole_numbers import rounded
from tasks.messages.encoding import to_json

if TYPE_CHECKING:
    from collections.abc import Iterator

#: All other keywords of JSON Schema, drafts 4 to 2020-12, and OpenAPI's annotations.
# fmt: off
KNOWN = frozenset({
    *ONE, *LISTS, *MAPS,
    "$anchor", "$comment", "$dynamicAnchor", "$dynamicRef", "$id", "$recursiveAnchor", "$recursiveRef", "$ref", "$schema",
    "$vocabulary", "const", "contentEncoding", "contentMediaType", "default", "dependentRequired", "deprecated",
    "description", "enum", "examples", "exclusiveMaximum", "exclusiveMinimum", "format", "id", "maxContains", "maxItems",
    "maxLength", "maxProperties", "maximum", "minContains", "minItems", "minLength", "minProperties", "minimum",
    "multipleOf", "pattern", "readOnly", "required", "title", "type", "uniqueItems", "writeOnly",
    "discriminator", "example", "externalDocs", "xml",
})
# fmt: on
#: How llguidance's errors begin.
_UNSATISFIABLE = "Unsatisfiable"
_UNRESOLVED = ("Pointer", "Resource")
_NO_PATTERN = "regex parse error"
#: Faults of a schema that no answer can be made by, also where nothing else has to be enforced.
NEVER = ("no value is valid (", "$ref: ")
#: A schema with more parts has its faults named without a place.
MOST_PARTS = 1_000
#: The most that is read of what parts refer to, again for each of them: a second or two.
MOST_BYTES = 50_000_000
TYPES = ("string", "number", "integer", "boolean", "null", "array", "object")
FORMATS = "date-time, date, time, duration, email, hostname, ipv4, ipv6, uri and uuid"


def faults(schema: Any, *, strict: bool) -> Iterator[str]:
    """Yield each part that cannot be enforced, with its pointer and what to do about it.

    Args:
        schema: a JSON Schema, which is :func:`adjusted`. Pointers are of what it was before.
        strict: whether the first is all that matters: else those that can be left out are all named.
    """
    placed = list(parts(schema, ""))[:MOST_PARTS]
    adjusted(schema)
    for pointer, part in placed:
        yield from (f"{pointer or '#'}: {fault}" for fault in _passed_over(part))
    whole = _refused(schema)
    if not whole:
        return
    found: dict[str, str] = {}
    looking = _Looking(schema)
    for pointer, part in placed:
        error = looking.refused(part)
        if not error or not _matters(error, whole, strict=strict):
            continue
        if "$ref" in part and not error.startswith(_UNRESOLVED):
            continue  # the fault is in what it refers to
        # A part is refused for a fault of its own, or for one in it, which has been named.
        if error not in found or not found[error].startswith(pointer):
            found[error] = pointer
            yield f"{pointer or '#'}: {_explained(error, part, strict=strict)}"
    if not found:
        yield f"#: {_explained(whole, schema, strict=strict)}"
    elif looking.left_bytes < 0:
        yield "#: it is too large to say all that cannot be enforced"


class _Looking:
    """Looks at the parts of a schema by themselves, with what they refer to, as long as that takes a bounded time."""

    def __init__(self, schema: Any) -> None:
        self._shared = {name: schema[name] for name in SHARED if isinstance(schema, dict) and name in schema}
        self._dialect = {name: value for name, value in self._shared.items() if name == "$schema"}
        self._shared_bytes = len(to_json(self._shared))
        self.left_bytes = MOST_BYTES

    def refused(self, part: dict[str, Any]) -> str:
        """Return why a part cannot be enforced; empty where it can, or is not looked at any more."""
        if '"$ref"' not in to_json(part):
            return _refused({**self._dialect, **part})
        self.left_bytes -= self._shared_bytes
        return _refused({**self._shared, **part}) if self.left_bytes >= 0 else ""


def _matters(error: str, whole: str, *, strict: bool) -> bool:
    """Whether a part's error is one of the whole schema's: what has no value is none where it is one of several alternatives."""
    if error.startswith(_UNSATISFIABLE):
        return strict and whole.startswith(_UNSATISFIABLE)
    return not strict or error == whole


def as_object(schema: Any) -> dict[str, Any]:
    """A schema that can carry options: ``true`` is ``{}``, and ``false`` is what nothing is valid by."""
    if isinstance(schema, dict):
        return schema
    return {} if schema else {"allOf": [False]}


def _passed_over(part: dict[str, Any]) -> Iterator[str]:
    """Yield each keyword that llguidance takes without a word and does not enforce."""
    is_open = part.get("additionalProperties") is not False or bool(part.get("patternProperties"))
    if isinstance(least := part.get("minProperties"), int) and least > 1 and is_open:
        yield "minProperties: a name that comes twice counts once; leave it out, or close the object: additionalProperties: false"
    yield from control_characters(part)
    yield from rounded(part)
    for name, value in part.items():
        if name == "nullable" and value is False:
            continue
        if name == "nullable":
            yield 'nullable is OpenAPI\'s, and not a keyword of JSON Schema; use {"type": ["string", "null"]}'
        elif name not in KNOWN and (not name.startswith("x-") or name == "x-guidance"):
            yield f"{name} is not a keyword of JSON Schema; leave it out, or have its name begin with x-"


def _refused(schema: Any) -> str:
    """Return why llguidance cannot enforce it; empty where it can."""
    is_error, messages = LLMatcher.validate_grammar_with_warnings(
        to_json({"grammars": [{"json_schema": schema}]}), limits=LIMITS
    )
    return str(messages[0]).strip().partition("\n")[0] if is_error else ""


def _explained(error: str, part: Any, *, strict: bool) -> str:
    """The fault in the words of JSON Schema, and what to do about it."""
    if error.startswith("oneOf"):
        return "oneOf: a value may be valid by two of them; give them a type or a const that tells them apart, or use anyOf"
    if error.startswith("Unknown format"):
        name = error.partition(": ")[2]
        return f"format: {name!r} is not known; leave it out, or use pattern; the formats that can be kept to are {FORMATS}"
    if error.startswith("Unimplemented keys"):
        names = ", ".join(json.loads(error.partition(": ")[2]))
        instead = "leave it out (have a list in the place of a set)" if "uniqueItems" in names else "leave it out"
        return f"{names}: cannot be enforced; {instead}{', or use strict: false, which does that' if strict else ''}"
    if error.startswith(_UNSATISFIABLE):
        return f"no value is valid ({error.partition(': ')[2]:.200}); change the schema"
    if found := looks_around(error):
        return f"{_unread_pattern(part) or 'pattern'} {found}, which cannot be kept to; leave that out"
    if error.startswith(_NO_PATTERN) and (unread := _unread_pattern(part)):
        return f"{unread} cannot be read; look-around and back-references are not known here"
    if error.startswith(_NO_PATTERN):
        return "its bounds are too large; use a smaller minLength or maxLength, or none"
    if error.startswith("Resource") and "$ref" not in part:
        name = error.split("'")[1]
        return f"$schema: {name!r:.200} is not a known dialect; use draft 4, 6, 7, 2019-09 or 2020-12"
    if error.startswith("Resource"):
        return f"$ref: {part.get('$ref')!r:.200} leads to another document; put what it names into $defs"
    if error.startswith("Pointer"):
        return f"$ref: {part.get('$ref')!r:.200} leads nowhere; put what it names into $defs"
    if error.startswith("min/maxProperties"):
        return (
            "minProperties, maxProperties: cannot be enforced beside properties that need not be there; leave them out"
        )
    if error.startswith("Invalid type"):
        return f"type: {error.partition(': ')[2]!r:.100} is not a type; the types are {', '.join(TYPES)}"
    return f"{error:.300}; change the schema"


def _unread_pattern(part: dict[str, Any]) -> str:
    """The expression that is the fault: the schema's own, or one for the names of properties; empty where there is none."""
    names = part.get("patternProperties", {})
    if unread := next((name for name in names if _refused({"type": "string", "pattern": name})), None):
        return f"patternProperties: {unread!r:.200}"
    return f"pattern: {part['pattern']!r:.200}" if "pattern" in part else ""

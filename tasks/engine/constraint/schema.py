"""What of a JSON Schema cannot be enforced, by JSON pointer: llguidance names a fault and no place, and passes over some."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from llguidance import LLMatcher

from tasks.engine.constraint.grammar import LIMITS
from tasks.messages.encoding import to_json

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Keywords whose value is a schema, a list of schemas, or an object of schemas.
# fmt: off
_ONE = (
    "additionalItems", "additionalProperties", "contains", "contentSchema", "else", "if", "items", "not", "propertyNames",
    "then", "unevaluatedItems", "unevaluatedProperties",
)
# fmt: on
_LISTS = ("allOf", "anyOf", "items", "oneOf", "prefixItems")
_MAPS = ("$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties")
#: All other keywords of JSON Schema, drafts 4 to 2020-12, and OpenAPI's annotations.
# fmt: off
_KNOWN = frozenset({
    *_ONE, *_LISTS, *_MAPS,
    "$anchor", "$comment", "$dynamicAnchor", "$dynamicRef", "$id", "$recursiveAnchor", "$recursiveRef", "$ref", "$schema",
    "$vocabulary", "const", "contentEncoding", "contentMediaType", "default", "dependentRequired", "deprecated",
    "description", "enum", "examples", "exclusiveMaximum", "exclusiveMinimum", "format", "id", "maxContains", "maxItems",
    "maxLength", "maxProperties", "maximum", "minContains", "minItems", "minLength", "minProperties", "minimum",
    "multipleOf", "pattern", "readOnly", "required", "title", "type", "uniqueItems", "writeOnly",
    "discriminator", "example", "externalDocs", "xml",
})
# fmt: on
#: Where references lead, as a rule.
_SHARED = ("$schema", "$defs", "definitions")
#: How a date begins that is none of the 29th of February, or of a leap year.
_LEAP = "([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)"
_DATE = f"^([0-9]{{4}}-(0[13-9]|1[0-2])|[0-9]{{4}}-02-([01]|2[0-8])|{_LEAP}-02-29)"
#: How llguidance's errors begin.
_UNSATISFIABLE = "Unsatisfiable"
_UNRESOLVED = ("Pointer", "Resource")
#: A schema with more parts has its faults named without a place.
MOST_PARTS = 1_000
FORMATS = "date-time, date, time, duration, email, hostname, ipv4, ipv6, uri and uuid"


def faults(schema: Any, *, strict: bool) -> Iterator[str]:
    """What cannot be enforced, each with its pointer and what to do about it.

    Args:
        schema: a JSON Schema.
        strict: whether the first is all that matters: else those that can be left out are all named.
    """
    parts = list(_parts(schema, ""))[:MOST_PARTS]
    for pointer, part in parts:
        yield from (f"{pointer or '#'}: {said}" for said in _passed_over(part))
    whole = _refused(schema)
    if not whole:
        return
    shared = {name: schema[name] for name in _SHARED if isinstance(schema, dict) and name in schema}
    found: dict[str, str] = {}
    for pointer, part in parts:
        error = _refused({**shared, **part})
        if not error or not _matters(error, whole, strict=strict):
            continue
        if "$ref" in part and not error.startswith(_UNRESOLVED):
            continue  # the fault is in what it refers to
        # A part is refused for a fault of its own, or for one in it, which has been named.
        if error not in found or not found[error].startswith(pointer):
            found[error] = pointer
            yield f"{pointer or '#'}: {_explained(error, part)}"
    if not found:
        yield f"#: {_explained(whole, schema)}"


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


def adjusted(schema: Any) -> Any:
    """The schema, changed in place, as llguidance has to be told it.

    By itself it takes a 29th of February in any year, and refuses a keyword that asks for nothing.
    """
    for _, part in list(_parts(schema, "")):
        if part.get("uniqueItems") is False:
            del part["uniqueItems"]
        if part.get("format") in ("date", "date-time") and isinstance(part.get("allOf", []), list):
            part["allOf"] = [*part.get("allOf", []), {"pattern": _DATE}]
    return schema


def _parts(schema: Any, pointer: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each schema in a schema with its pointer, the innermost first."""
    if not isinstance(schema, dict):
        return
    # What others refer to comes first: a fault in it is theirs too.
    for name, value in sorted(schema.items(), key=lambda item: item[0] not in _SHARED):
        here = f"{pointer or '#'}/{_escaped(name)}"
        if name in _MAPS and isinstance(value, dict):
            for key, inner in value.items():
                yield from _parts(inner, f"{here}/{_escaped(key)}")
        elif name in _LISTS and isinstance(value, list):
            for place, inner in enumerate(value):
                yield from _parts(inner, f"{here}/{place}")
        elif name in _ONE:
            yield from _parts(value, here)
    yield pointer, schema


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _passed_over(part: dict[str, Any]) -> Iterator[str]:
    """What llguidance takes without a word and does not enforce."""
    if (
        isinstance(least := part.get("minProperties"), int)
        and least > 1
        and part.get("additionalProperties") is not False
    ):
        yield "minProperties: a name that comes twice counts once; leave it out, or close the object: additionalProperties: false"
    for name, value in part.items():
        if name == "nullable" and value is False:
            continue
        if name == "nullable":
            yield 'nullable is OpenAPI\'s, and no keyword of JSON Schema; use {"type": ["string", "null"]}'
        elif name not in _KNOWN and (not name.startswith("x-") or name == "x-guidance"):
            yield f"{name} is no keyword of JSON Schema; leave it out"


def _refused(schema: Any) -> str:
    """Why llguidance cannot enforce it; empty where it can."""
    is_error, said = LLMatcher.validate_grammar_with_warnings(
        to_json({"grammars": [{"json_schema": schema}]}), limits=LIMITS
    )
    return str(said[0]).strip().partition("\n")[0] if is_error else ""


def _explained(error: str, part: Any) -> str:
    """The fault in the words of JSON Schema, and what to do about it."""
    if error.startswith("oneOf"):
        return "oneOf: a value may be valid by two of them; give them a type or a const that tells them apart, or use anyOf"
    if error.startswith("Unknown format"):
        name = error.partition(": ")[2]
        return f"format: {name!r} is not known; leave it out, or use pattern; the formats that can be kept to are {FORMATS}"
    if error.startswith("Unimplemented keys"):
        names = ", ".join(json.loads(error.partition(": ")[2]))
        return f"{names}: cannot be enforced; leave it out, or use strict: false, which does that"
    if error.startswith(_UNSATISFIABLE):
        return f"no value is valid ({error.partition(': ')[2]:.200}); change the schema"
    if error.startswith("regex parse error"):
        return (
            f"pattern: {part.get('pattern')!r:.200} cannot be read; look-around and back-references are not known here"
        )
    return f"{error:.300}; change the schema"

"""A JSON Schema as llguidance has to be told it: the same values are valid, and it can be enforced."""

from __future__ import annotations

from typing import Any

from tasks.engine.constraint.exclusive import exclude_each_other
from tasks.engine.constraint.parts import SHARED, parts

#: How a date begins that is none of the 29th of February, or of a leap year. There is no year 0.
_YEAR = "([1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_LEAP = "([0-9]{2}(0[48]|[2468][048]|[13579][26])|([2468][048]|0[48]|[13579][26])00)"
_DATE = f"^({_YEAR}-(0[13-9]|1[0-2])|{_YEAR}-02-([01]|2[0-8])|{_LEAP}-02-29)"
#: How a time ends: leap seconds are known in hindsight alone, and Python has microseconds.
_TIME = r":[0-5][0-9](\.[0-9]{1,6})?([zZ]|[+-][0-9:]{5})$"
_KEPT_TO = {"date": (_DATE,), "date-time": (_DATE, _TIME), "time": (_TIME,)}
_HEX = "[0-9a-fA-F]"
#: Formats that pydantic has, and llguidance not.
_PATTERNS = {
    f"uuid{number}": f"^{_HEX}{{8}}-{_HEX}{{4}}-{number}{_HEX}{{3}}-[89abAB]{_HEX}{{3}}-{_HEX}{{12}}$"
    for number in (1, 3, 4, 5, 6, 7, 8)
} | {
    "base64": "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",
    "base64url": "^([A-Za-z0-9_-]{4})*([A-Za-z0-9_-]{2}==|[A-Za-z0-9_-]{3}=)?$",
}
#: Formats of any text: OpenAPI and pydantic say by them what it is for.
_ANY_TEXT = ("binary", "password", "path", "file-path", "directory-path")
#: Keywords that ask for nothing. llguidance takes none that it does not know beside a reference that leads back to where it is.
_SILENT = ("deprecated", "discriminator", "example", "externalDocs", "xml")


def adjusted(schema: Any) -> Any:
    """The schema, changed in place.

    By itself llguidance takes a 29th of February in any year, refuses a keyword that asks for nothing, does not know that names
    out of a list are properties, and does not look where references lead to tell alternatives apart.
    """
    for _, part in list(parts(schema, "")):
        _drop_what_asks_for_nothing(part)
        if (names := _listed_names(part, schema)) is not None:
            part["properties"] = dict.fromkeys(names, part.get("additionalProperties", True))
            part["additionalProperties"] = False
            del part["propertyNames"]
        if (pattern := _of_format(part, _PATTERNS)) is not None:
            del part["format"]
            _require(part, {"pattern": pattern})
        for pattern in _of_format(part, _KEPT_TO) or ():
            _require(part, {"pattern": pattern})
    everything = [part for _, part in parts(schema, "")]
    if not any("$id" in part for part in everything[:-1]):  # where references are as they stand
        for part in everything:
            _tell_apart(part, schema)
    return schema


def _tell_apart(part: dict[str, Any], root: dict[str, Any]) -> None:
    """Have alternatives that exclude each other be any of them."""
    alternatives = part.get("oneOf")
    if not isinstance(alternatives, list) or not alternatives or not exclude_each_other(alternatives, root):
        return
    del part["oneOf"]
    if "anyOf" in part:
        _require(part, {"anyOf": alternatives})
    else:
        part["anyOf"] = alternatives


def _drop_what_asks_for_nothing(part: dict[str, Any]) -> None:
    for name in list(part):
        if name in _SILENT or (name.startswith("x-") and name != "x-guidance"):
            del part[name]
    for name in ("uniqueItems", "nullable"):
        if part.get(name) is False:
            del part[name]
    if part.get("format") in _ANY_TEXT:
        del part["format"]


def _of_format(part: dict[str, Any], known: dict[str, Any]) -> Any:
    """What is known of a schema's format; ``None`` where that is nothing."""
    return known.get(part["format"]) if isinstance(part.get("format"), str) else None


def _require(part: dict[str, Any], other: dict[str, Any]) -> None:
    """Have it be valid by another schema as well."""
    others = part.get("allOf", [])
    if isinstance(others, list) and other not in others:
        part["allOf"] = [*others, other]


def _listed_names(part: dict[str, Any], root: dict[str, Any]) -> list[str] | None:
    """The names that an object's properties may have, where these are a list, and nothing else is said of any of them."""
    asked = part.get("propertyNames")
    if not isinstance(asked, dict) or part.get("properties") or "patternProperties" in part:
        return None
    if isinstance(reference := asked.get("$ref"), str) and len(asked) == 1:
        kind, _, name = reference.removeprefix("#/").partition("/")
        shared = root.get(kind) if kind in SHARED else None
        asked = shared.get(name) if isinstance(shared, dict) else None
    if not isinstance(asked, dict) or not asked.keys() <= {"enum", "const", "type", "title", "description"}:
        return None
    names = asked.get("enum", [asked.get("const")])
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None

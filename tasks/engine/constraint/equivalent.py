"""A JSON Schema as llguidance has to be told it: the same values are valid, and it can be enforced."""

from __future__ import annotations

from typing import Any

from tasks.engine.constraint.exclusive import Comparison
from tasks.engine.constraint.parts import parts, require
from tasks.engine.constraint.property_names import without_names
from tasks.engine.constraint.references import References
from tasks.engine.constraint.text_formats import hold_to_format
from tasks.engine.constraint.whole_numbers import precise

#: Keywords that ask for nothing. llguidance takes none that it does not know beside a reference that leads back to where it is.
_SILENT = ("deprecated", "discriminator", "example", "externalDocs", "xml")
#: How llguidance writes dialects, by their beginning and however they are written.
_DIALECTS = {"json-schema.org/draft-0": "http://", "json-schema.org/draft/20": "https://"}
#: llguidance fails for the bounds of 64-bit numbers.
_MOST = 10**18
_LEAST_OF = ("minimum", "exclusiveMinimum")
_MOST_OF = ("maximum", "exclusiveMaximum")


def adjusted(schema: Any) -> Any:
    """The schema, changed in place.

    By itself llguidance takes a 29th of February in any year, refuses a keyword that asks for nothing, knows no names of
    properties but those that are listed, and does not look where references lead to tell alternatives apart.
    """
    references = References(schema)
    for _, part in list(parts(schema, "")):
        without_names(part, references)
    for _, part in list(parts(schema, "")):
        _drop_what_asks_for_nothing(part)
        _say_what_is_known(part)
        hold_to_format(part)
    comparison = Comparison(references)
    for _, part in list(parts(schema, "")):
        _tell_apart(part, comparison)
    return schema


def _tell_apart(part: dict[str, Any], comparison: Comparison) -> None:
    """Have alternatives that exclude each other be any of them."""
    alternatives = part.get("oneOf")
    if not isinstance(alternatives, list) or not alternatives or not comparison.exclude_each_other(alternatives):
        return
    del part["oneOf"]
    if "anyOf" in part:
        require(part, {"anyOf": alternatives})
    else:
        part["anyOf"] = alternatives


def _drop_what_asks_for_nothing(part: dict[str, Any]) -> None:
    for name in list(part):
        if name in _SILENT or (name.startswith("x-") and name != "x-guidance"):
            del part[name]
    for name in ("uniqueItems", "nullable"):
        if part.get(name) is False:
            del part[name]


def _say_what_is_known(part: dict[str, Any]) -> None:
    """Have it say in llguidance's words what these lack, or closer bounds, by which answers are valid too."""
    dialect = part.get("$schema")
    if isinstance(dialect, str):
        name = dialect.removesuffix("#").partition("://")[2]
        scheme = next((scheme for begin, scheme in _DIALECTS.items() if name.startswith(begin)), None)
        part["$schema"] = dialect if scheme is None else f"{scheme}{name}"
    if part.get("not") in ({}, True):  # as Zod says that there is no such value
        del part["not"]
        require(part, False)
    for names, sign in ((_LEAST_OF, -1), (_MOST_OF, 1)):
        for name in names:
            bound = part.get(name)
            if isinstance(bound, int | float):
                part[name] = sign * _MOST if sign * bound > _MOST else precise(bound, sign)

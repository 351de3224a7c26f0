"""Whole numbers in a JSON Schema: llguidance reads them in double precision, which has no odd numbers above 2**53.

An identifier in an ``enum`` is answered by another one, and a bound by a number beyond it, without an error.
"""

from __future__ import annotations

import math
from typing import Any

from tasks.engine.constraint.parts import parts

_VALUES = ("const", "enum")
REMEDY = "has more digits than can be kept to; use a text"


def rounded(part: dict[str, Any]) -> list[str]:
    """List what is wrong with the values of a schema, without the schemas in it."""
    found = ((name, next(_rounded(part[name]), None)) for name in _VALUES if name in part)
    return [f"{name}: {value} {REMEDY}" for name, value in found if value is not None]


def without_rounded(schema: Any) -> Any:
    """The schema, changed in place: where a value would be another one, any of its type is valid."""
    for _, part in parts(schema, ""):
        for name in _VALUES:
            if name not in part or next(_rounded(part[name]), None) is None:
                continue
            value = part.pop(name)
            values = value if name == "enum" else [value]
            if all(type(value) is int for value in values):
                part.setdefault("type", "integer")
    return schema


def precise(bound: float, sign: int) -> float:
    """A bound that is read as it is written, or the next such one: no number beyond ``bound`` is within it.

    Args:
        bound: what it is.
        sign: 1 for a greatest number, -1 for a least one.
    """
    if not isinstance(bound, int) or not (beyond := sign * (int(float(bound)) - bound)):
        return bound
    return int(math.nextafter(float(bound), -sign * math.inf)) if beyond > 0 else int(float(bound))


def _rounded(value: Any) -> Any:
    """The whole numbers in a value that are read as others."""
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _rounded(inner)
    elif isinstance(value, int) and abs(value) > 2**53 and (abs(value) > 2**63 or int(float(value)) != value):
        yield value

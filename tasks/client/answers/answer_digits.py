"""Numbers of an answer that have more digits than a float: a field of the type ``Decimal`` gets all of them.

pydantic reads a number of JSON as a float, and a text in its place with all its digits where a ``Decimal`` is wanted.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from tasks.messages.encoding import to_json

if TYPE_CHECKING:
    from collections.abc import Callable


def exact_json(text: str) -> str | None:
    """The JSON with a text in the place of each number that no float holds; ``None`` where floats hold all of them."""
    replaced: list[str] = []

    def read(number: str) -> float | str:
        value = float(number)
        if Decimal(repr(value)) == Decimal(number):
            return value
        replaced.append(number)
        return number

    try:
        value = json.loads(text, parse_float=read)
    except (ValueError, RecursionError):
        return None
    return to_json(value) if replaced else None


def with_digits(kind: Any, rounded: Any, read: Callable[[], Any]) -> Any:
    """The value that ``read`` makes of :func:`exact_json`, if it is ``rounded`` but for the digits of decimals; else ``rounded``.

    Args:
        kind: the type of both.
        rounded: the value with numbers as floats.
        read: makes the other.
    """
    from pydantic import TypeAdapter

    try:
        adapter = kind if isinstance(kind, TypeAdapter) else TypeAdapter(kind)
        exact = read()
        same = _differ_in_digits_alone(adapter.dump_python(rounded), adapter.dump_python(exact))
    except Exception:  # noqa: BLE001  (a strict field takes no text for a float, and validators raise what they like)
        return rounded
    return exact if same else rounded


def _differ_in_digits_alone(left: Any, right: Any) -> bool:
    if isinstance(left, Decimal):
        return isinstance(right, Decimal)
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(_differ_in_digits_alone(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(_differ_in_digits_alone, left, right))
    return bool(left == right)

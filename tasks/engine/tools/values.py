"""Arguments that a model wrote as plain text, as the values that the function's schema asks for."""

from __future__ import annotations

import ast
import json
from typing import TYPE_CHECKING, Any

from tasks.messages.encoding import to_json

if TYPE_CHECKING:
    from tasks.engine.tools.functions import Functions

_WORDS = {"true": True, "false": False, "null": None, "none": None}


def value_of(raw: str, functions: Functions, name: str, argument: str, *, is_text: bool | None = None) -> Any:
    """The value that a text stands for.

    Where only text is allowed it is the text, whatever it looks like: ``null`` and ``12`` are words, too. Where other types
    are allowed besides, it is the value that it reads as, if the schema takes that.

    Args:
        raw: the text.
        functions: the request's.
        name: the function.
        argument: the argument's name.
        is_text: what the syntax itself says of the type; ``None`` where it says nothing.
    """
    if is_text:
        return raw
    readings = _readings(raw)
    quoted = [value for value in readings if isinstance(value, str)]
    others = [value for value in readings if not isinstance(value, str)]
    tried = [*others, *quoted, raw] if is_text is False else [*others, raw, *quoted]
    return next((value for value in tried if functions.fits(name, argument, value)), raw)


def _readings(raw: str) -> list[Any]:
    """Return all readings of the text, the likeliest first."""
    text = raw.strip()
    found: list[Any] = []
    for read in (json.loads, _word, _literal):
        try:
            value = read(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
        if value not in found or isinstance(value, bool):
            found.append(value)
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            found.append(int(value))
    return found


def _word(text: str) -> Any:
    if text.lower() not in _WORDS:
        raise ValueError(text)
    return _WORDS[text.lower()]


def _literal(text: str) -> Any:
    """A container as Python has it, of what JSON has too."""
    value = ast.literal_eval(text) if text[:1] in ("{", "[", "(") else None
    if value is None:
        raise ValueError(text)
    return json.loads(to_json(value))

"""JSON text that every parser reads. Python's own writes ``NaN`` and ``Infinity``, which are no JSON."""

from __future__ import annotations

import json
from dataclasses import fields
from functools import lru_cache
from json.encoder import encode_basestring
from math import isfinite
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_scan: Any = vars(json.JSONDecoder())["scan_once"]
#: A text as JSON, as :func:`to_compact_json` writes it.
quoted: Callable[[str], str] = encode_basestring


def _quick(encoder: json.JSONEncoder) -> Callable[[Any], str]:
    """What encodes as this does. Python makes it anew for each value."""
    make: Any = vars(json.encoder)["c_make_encoder"]
    if make is None:
        return encoder.encode
    text = json.encoder.encode_basestring_ascii if encoder.ensure_ascii else json.encoder.encode_basestring
    separators = encoder.key_separator, encoder.item_separator
    # Without the first argument, a note of what it is within, any thread may use it.
    made = make(None, encoder.default, text, None, *separators, encoder.sort_keys, encoder.skipkeys, encoder.allow_nan)
    return lambda value: "".join(made(value, 0))


_compact = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_canonical = _quick(json.JSONEncoder(allow_nan=False, separators=(",", ":"), sort_keys=True))
_sorted = _quick(json.JSONEncoder(ensure_ascii=False, allow_nan=False, sort_keys=True))


def to_json(value: Any, **options: Any) -> str:
    """The value as JSON, with the options of :func:`json.dumps`; a number that is not finite is ``null``."""
    return _encode(_encoder(**options), value)


def to_compact_json(value: Any) -> str:
    """The same without spaces and escapes, as records on the wire are written."""
    return _encode(_compact, value)


def to_canonical_json(value: Any) -> str:
    """The one text of all that are equal: with sorted keys, without spaces, and all else escaped."""
    return _encode(_canonical, value)


def to_sorted_json(value: Any) -> str:
    """The same with spaces, and without escapes."""
    return _encode(_sorted, value)


def from_json(text: str) -> Any:
    """The value of a JSON text, at half the cost of :func:`json.loads` where nothing stands around it.

    Raises:
        ValueError: it is not JSON.
        RecursionError: it is nested too deeply.
    """
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        return json.loads(text)
    return value if end == len(text) else json.loads(text)


def known_fields(record: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that a dataclass has fields for: a later version may have written others."""
    names = {field.name for field in fields(record)}
    return {name: value for name, value in values.items() if name in names}


@lru_cache(maxsize=64)
def _encoder(**options: Any) -> Callable[[Any], str]:
    return json.JSONEncoder(allow_nan=False, **options).encode


def _encode(encode: Callable[[Any], str], value: Any) -> str:
    try:
        return encode(value)
    except ValueError:
        return encode(_finite(value))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not isfinite(value) else value

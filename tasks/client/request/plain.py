"""Turns producers' values into JSON's: SDK objects, dataclasses, tuples, numbers of other libraries."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from decimal import Decimal
from enum import Enum
from numbers import Integral, Real
from typing import Any

from tasks.errors import InvalidRequest
from tasks.messages.depth import MAX_DEPTH

#: A list that contains itself twice doubles at each level: the depth alone is no bound.
MAX_VALUES = 1_000_000
#: Values of these types are data as they are.
DATA = frozenset({str, bool, float, type(None)})
#: Python reads and writes integers of up to 4,300 digits, other languages fewer.
MAX_INTEGER_BITS = 1024
_FEW_BITS = 2**63
#: The keys that kombu's JSON gives to dates, decimals and the like. It reads every dictionary with these alone as one of them.
TAGS = frozenset({"__type__", "__value__"})


def plain(value: Any, where: str) -> Any:
    """``value`` as text, numbers, booleans, lists and dictionaries, without the caller's own objects in it.

    Pydantic models (OpenAI's SDK has them), dataclasses, mappings, tuples, enumerations, paths and the numbers of numpy,
    MLX, PyTorch and ``decimal`` are taken.

    Args:
        value: anything.
        where: the field's name, for the error.

    Raises:
        InvalidRequest: something in it is no data, or it is nested too deeply.
    """
    if type(value) in DATA or (type(value) is int and abs(value) <= _FEW_BITS):
        return value
    return _Conversion(where).convert(value, MAX_DEPTH)


class _Conversion:
    """One value; counts what it has come across."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._values = 0

    def convert(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind in DATA:
            return value
        # Most values are of JSON's own types, and a look for all other types takes ten times as long.
        simple = value if kind is int else None if kind in (dict, list) else _simple(value)
        if isinstance(simple, int) and simple.bit_length() > MAX_INTEGER_BITS:
            raise InvalidRequest(f"{self._where}: an integer of {simple.bit_length()} bits: use a smaller one, or text")
        if simple is not None:
            return simple
        opened = value if kind in (dict, list) else _opened(value)
        if opened is None:
            raise InvalidRequest(f"{self._where}: {_instead(value)}")
        if type(opened) not in (dict, list) and not isinstance(opened, Mapping | list):  # a number of numpy's
            return self.convert(opened, depth)
        if depth == 0:
            raise InvalidRequest(f"{self._where}: nested more than {MAX_DEPTH} levels deep: send a flatter value")
        self._values += len(opened)
        if self._values > MAX_VALUES:
            raise InvalidRequest(f"{self._where}: more than {MAX_VALUES} values: send fewer")
        if isinstance(opened, list):
            return [self.convert(inner, depth - 1) for inner in opened]
        made = {self._key(key): self.convert(inner, depth - 1) for key, inner in opened.items()}
        if len(made) == len(TAGS) and made.keys() == TAGS:
            raise InvalidRequest(
                f"{self._where}: Celery reads a dictionary of __type__ and __value__ as another type: rename a key"
            )
        return made

    def _key(self, key: Any) -> str:
        """A key as JSON has it, so that a request reads alike where it is sent and where it has arrived."""
        if type(key) is str:
            return key
        if isinstance(key, Enum):
            key = key.value
        if isinstance(key, str):
            return str.__str__(key)
        if type(key) is not bool and isinstance(key, Integral):
            return str(int(key))
        raise InvalidRequest(f"{self._where}: a dictionary has a key of type {type(key).__name__}: use text")


def _simple(value: Any) -> str | int | float | None:
    """A text or a number that a subclass or another library's type stands for; ``None`` where it is neither."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, str):
        return str.__str__(value)
    if value is True or value is False:
        return bool(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real | Decimal):
        return _float(value)
    return os.fsdecode(value) if isinstance(value, os.PathLike) else None


def _float(value: Real | Decimal) -> float:
    try:
        return float(value)
    except (OverflowError, ValueError):  # a fraction beyond all floats, a signalling NaN
        return float("nan")


def _opened(value: Any) -> Any:
    """The mapping or list inside a value, or the number of an array without dimensions; ``None`` where it is no data."""
    kind = type(value)
    if isinstance(value, Mapping | list):
        return value
    if isinstance(value, tuple) and hasattr(kind, "_asdict"):
        return value._asdict()  # type: ignore[attr-defined]
    if isinstance(value, tuple | deque | range):
        return list(value)
    if isinstance(value, type):
        return None
    if is_dataclass(value):
        return {field_.name: getattr(value, field_.name) for field_ in fields(value)}
    try:
        if callable(getattr(kind, "model_dump", None)):
            return value.model_dump(mode="json", by_alias=True, warnings=False)
        if callable(getattr(kind, "tolist", None)):
            return value.tolist()
    except Exception:  # noqa: BLE001  (somebody else's code: whatever it raises, this is no data)
        return None
    return None


def is_left_out(value: Any) -> bool:
    """Whether a value stands for none: OpenAI's SDK has two objects of its own for it."""
    return value is None or type(value).__name__ in ("NotGiven", "Omit")


def _instead(value: Any) -> str:
    """The remedy for a value that is no data."""
    kind = type(value).__name__
    if isinstance(value, bytes | bytearray | memoryview):
        return f"bytes ({kind}) are not text: use .decode()"
    if isinstance(value, type):
        return f"the class {value.__name__} is not data: use a value, or .model_json_schema() of it"
    if isinstance(value, set | frozenset):
        return f"a {kind} has no order: use a list"
    if hasattr(value, "__next__") or hasattr(value, "__aiter__"):
        return f"a {kind} is read once, and a request may be sent again: use a list"
    return f"{kind} is not plain data: use text, numbers, booleans, lists and dictionaries"

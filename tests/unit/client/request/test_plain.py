"""What people hand over becomes plain JSON, or one error."""

from __future__ import annotations

import enum
import json
from collections import OrderedDict, deque, namedtuple
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from pydantic import BaseModel

from tasks.client.answers.answer import Answer
from tasks.client.request.plain import MAX_INTEGER_BITS, MAX_VALUES, plain
from tasks.errors import InvalidRequest
from tasks.messages.depth import MAX_DEPTH, exceeds
from tests.garbage import JSON


class Model(BaseModel):
    role: str = "user"
    content: str | None = None


@dataclass
class Data:
    role: str
    parts: tuple[Model, ...] = ()


class Colour(enum.Enum):
    RED = "red"


class Word(str, enum.Enum):  # noqa: UP042  (as people's older code has it)
    HELLO = "hello"


Pair = namedtuple("Pair", ["role", "content"])


def refused(value: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        plain(value, "metadata")
    assert str(caught.value).startswith("metadata: ")
    return str(caught.value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Model(content="x"), {"role": "user", "content": "x"}),
        (Data("user", (Model(),)), {"role": "user", "parts": [{"role": "user", "content": None}]}),
        (Pair("user", "x"), {"role": "user", "content": "x"}),
        ((1, (2, 3)), [1, [2, 3]]),
        (deque([1]), [1]),
        (range(3), [0, 1, 2]),
        (OrderedDict(a=MappingProxyType({"b": 1})), {"a": {"b": 1}}),
        (Answer({"text": "x"}), {"text": "x"}),
        (Colour.RED, "red"),
        (Word.HELLO, "hello"),
        (np.int64(5), 5),
        (np.float32(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (np.arange(3), [0, 1, 2]),
        ({np.int64(5): np.float64(1.5)}, {"5": 1.5}),
        (Decimal("0.5"), 0.5),
        (Fraction(1, 2), 0.5),
        (Path("/models/x"), "/models/x"),
    ],
)
def test_what_stands_for_data(value: Any, expected: Any) -> None:
    """Objects of SDKs, dataclasses, tuples, enumerations, paths and other libraries' numbers are taken as what they hold."""
    found = plain(value, "metadata")
    assert found == expected
    assert json.loads(json.dumps(found)) == json.loads(json.dumps(expected))
    assert type(found) is type(expected)


@given(JSON)
def test_json_stays(value: Any) -> None:
    """What is plain JSON already is the same afterwards, and nothing of it is the caller's own."""
    found = plain(value, "metadata")
    assert json.dumps(found) == json.dumps(value)
    assert found is not value or not isinstance(value, dict | list)


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        (b"x", "use .decode()"),
        ({"a", "b"}, "use a list"),
        ((n for n in range(3)), "use a list"),
        (object(), "use text, numbers, booleans, lists and dictionaries"),
        (SimpleNamespace(role="user"), "use text, numbers, booleans, lists and dictionaries"),
        (Model, "the class Model is not data: use a value, or .model_json_schema() of it"),
        ({("a",): 1}, "a dictionary has a key of type tuple: use text"),
        ({None: 1}, "a dictionary has a key of type NoneType: use text"),
        (2**MAX_INTEGER_BITS, "use a smaller one, or text"),
        (
            {"__type__": "datetime", "__value__": "2026-01-01T00:00:00"},
            "reads a dictionary of __type__ and __value__ as another type: rename a key",
        ),
    ],
)
def test_what_is_no_data(value: Any, remedy: str) -> None:
    """What cannot be a part of a message is refused with what to use, also deep inside."""
    assert remedy in refused(value)
    assert remedy in refused({"a": [value]})


def test_depth() -> None:
    """The bound itself is taken, one more is refused; what contains itself is nested without end."""
    value: Any = "x"
    for _ in range(MAX_DEPTH):
        value = [value]
    assert plain(value, "metadata") == value
    assert f"nested more than {MAX_DEPTH} levels deep: send a flatter value" in refused([value])
    endless: list[Any] = []
    endless.append(endless)
    assert "nested more than" in refused(endless)
    doubled: Any = []
    for _ in range(MAX_DEPTH - 2):
        doubled = [doubled, doubled]
    assert f"more than {MAX_VALUES} values" in refused(doubled)


def test_exceeds() -> None:
    """The depth of what came out of JSON is found without recursion."""
    assert not exceeds("x", 0)
    assert exceeds([], 0)
    assert not exceeds([[], {"a": [1]}], 3)
    assert exceeds([[], {"a": [1]}], 2)
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert exceeds(deep, MAX_DEPTH)
    while deep:  # freed from the outside in, so that the interpreter does not recurse either
        deep = deep.pop()

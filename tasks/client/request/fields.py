"""Fields that every task of this project takes, with what to do about a wrong value."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, NoReturn

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from tasks.names import COMMAND

MAX_EXTRA_BYTES = 16 * 1024
#: Unix seconds of 2001 and of 2286: below are seconds from now, above are milliseconds.
FIRST_DEADLINE, LAST_DEADLINE = 1e9, 1e10
MAX_CACHE_KEY_CHARACTERS = 1024
MAX_KEEP_ALIVE_S = 10 * 365 * 86_400.0
MAX_STOPS = 16
#: Whole numbers stay within what every machine word and every JSON reader takes.
MAX_COUNT = 2**31 - 1
MAX_STOP_CHARACTERS = 256


def no_truth(value: Any) -> Any:
    """Refuse a truth value where a number is meant: Python counts with them."""
    if isinstance(value, bool):
        raise PydanticCustomError("number", "input should be a number")
    return value


def whole_text(value: str, about: str) -> str:
    """Refuse a text that has one half of a character; ``about`` begins the error: the text's name."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        half = value[error.start]
        raise PydanticCustomError(
            "text", f"{about} has {half!r}, one half of a character, at {error.start}; send whole text"
        ) from None
    return value


def no_number(value: Any) -> Any:
    """Refuse a number where a truth value is meant: ``logprobs=5`` is how an older interface asks for alternatives."""
    if isinstance(value, int) and not isinstance(value, bool):
        raise PydanticCustomError("truth", "input should be True or False")
    return value


def size_bytes(value: Any, about: str) -> int:
    """The length of a value's JSON in UTF-8.

    Args:
        value: plain data.
        about: begins the error: the value's name.

    Raises:
        PydanticCustomError: it is not JSON that can be sent.
    """
    try:
        return len(json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode())
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise PydanticCustomError("json", f"{about} has {half!r}, one half of a character; send whole text") from None
    except ValueError:
        raise PydanticCustomError(
            "json",
            f"{about} has a number that is none; JSON has no NaN and no infinity, so use another or leave it out",
        ) from None


def finite(number: str) -> float:
    """A number of a JSON text, for :func:`json.loads`. Raises ValueError for one that no float is, such as ``1e999``."""
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(number)
    return value


def refuse_number(name: str) -> NoReturn:
    """Refuse ``NaN`` and the infinities, which :func:`json.loads` reads although JSON has none."""
    raise ValueError(f"{name} is not JSON")


def small_json(value: dict[str, Any]) -> dict[str, Any]:
    """Refuse what is too large to be carried along, or no JSON."""
    size = size_bytes(value, "it")
    if size > MAX_EXTRA_BYTES:
        raise PydanticCustomError("size", f"is {size} bytes as JSON; the limit is {MAX_EXTRA_BYTES}: send less")
    return value


def as_texts(value: Any) -> Any:
    """A single stop string is a list with that string; ``None`` is none."""
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else value


def bounded_stops(value: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse more or longer stop strings than an engine looks for, and empty ones."""
    if len(value) > MAX_STOPS:
        raise PydanticCustomError("stop", f"at most {MAX_STOPS} stop strings, got {len(value)}")
    for text in value:
        if not 1 <= len(text) <= MAX_STOP_CHARACTERS:
            raise PydanticCustomError("stop", f"each stop string has 1 to {MAX_STOP_CHARACTERS} characters")
        whole_text(text, "one of them")
    return value


ModelName = Annotated[
    Annotated[str, Field(min_length=1, max_length=256)] | None,
    Field(description=f"use a name of the catalogue, as {COMMAND} models lists them"),
]
CacheKey = Annotated[
    Annotated[str, Field(max_length=MAX_CACHE_KEY_CHARACTERS)] | None,
    Field(description=f"use a text of at most {MAX_CACHE_KEY_CHARACTERS} characters, or leave it out"),
]
Deadline = Annotated[
    Annotated[float, Field(ge=FIRST_DEADLINE, le=LAST_DEADLINE)] | None,
    BeforeValidator(no_truth),
    Field(description="use Unix seconds: time.time() + 30 is in half a minute"),
]
KeepAlive = Annotated[
    Annotated[float, Field(gt=0, le=MAX_KEEP_ALIVE_S)] | None,
    BeforeValidator(no_truth),
    Field(description="use seconds above 0, or leave it out"),
]
Flag = Annotated[bool, BeforeValidator(no_number), Field(description="use True or False")]
Extra = Annotated[
    dict[str, Any],
    AfterValidator(small_json),
    Field(description=f"give a dictionary of plain JSON with text as keys, at most {MAX_EXTRA_BYTES} bytes"),
]
Temperature = Annotated[
    float, Field(ge=0, allow_inf_nan=False, description="use 0 for greedy decoding, or a number above it")
]
TopP = Annotated[float, Field(gt=0, le=1, description="use a number above 0 and at most 1; 1 switches it off")]
ThinkingBudget = Annotated[
    Annotated[int, Field(ge=0, le=MAX_COUNT)] | None,
    Field(description="use a number of tokens, 0 for no thought, or leave it out"),
]
RepetitionPenalty = Annotated[
    float, Field(gt=0, allow_inf_nan=False, description="use a number above 0; 1 switches it off")
]
Penalty = Annotated[
    float, Field(ge=-2, le=2, allow_inf_nan=False, description="use a number from -2 to 2; 0 switches it off")
]
Stops = Annotated[
    tuple[str, ...],
    BeforeValidator(as_texts),
    AfterValidator(bounded_stops),
    Field(description=f"give up to {MAX_STOPS} texts of 1 to {MAX_STOP_CHARACTERS} characters, or leave it out"),
]

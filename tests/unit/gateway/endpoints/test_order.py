"""Numbers of a body, however a client writes them."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.client.request.fields import MAX_COUNT
from tasks.client.request.parameters import MAX_TOKENS_DEFAULT
from tasks.errors import InvalidRequest
from tasks.gateway.endpoints import chat, completions

HELLO = [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize(
    ("asked", "most"),
    [
        ({}, MAX_TOKENS_DEFAULT),
        ({"max_tokens": 5_000}, 5_000),
        ({"max_completion_tokens": 5_000}, 5_000),
        ({"max_tokens": None, "max_completion_tokens": "5000"}, 5_000),
        ({"max_tokens": 5_000.0, "n": 2}, 10_000),
        ({"max_tokens": -5_000}, 0),
        ({"max_tokens": 10**30}, MAX_COUNT),
        ({"max_tokens": True}, MAX_TOKENS_DEFAULT),
    ],
)
def test_an_answer_is_reserved_by_its_longest_length(asked: dict[str, Any], most: int) -> None:
    """A limit on tokens counts what may come, by either name of the field and as text, too."""
    prompts = chat.parse({"messages": HELLO, "n": asked.get("n"), "max_tokens": 0}, "fake:1").tokens
    assert chat.parse({"messages": HELLO, **asked}, "fake:1").tokens - prompts == most


@pytest.mark.parametrize(
    ("seed", "seeds"),
    [
        (7, [7, 8, 9]),
        ("7", [7, 8, 9]),
        (7.0, [7, 8, 9]),
        (-1, [-1, 0, 1]),
        (2**64 - 2, [2**64 - 2, 2**64 - 1, 0]),
        (True, [True] * 3),
        (2**64, [2**64] * 3),
        ("seven", ["seven"] * 3),
    ],
)
def test_a_seed_counts_up(seed: Any, seeds: list[Any]) -> None:
    """Choices of one seed differ, within 64 bits; what is no seed stays as it is, to be refused with its value."""
    order = chat.parse({"messages": HELLO, "n": 3, "seed": seed}, "fake:1")
    assert [values["seed"] for values in order.values] == seeds
    assert [type(values["seed"]) for values in order.values] == [type(value) for value in seeds]


@pytest.mark.parametrize(("given", "count"), [(2, 2), (2.0, 2), ("2", 2), (None, 1)])
def test_a_number_of_choices(given: Any, count: int) -> None:
    """It may be a float or text, as every number of ``generate``."""
    assert len(chat.parse({"messages": HELLO, "n": given}, "fake:1").values) == count


@pytest.mark.parametrize("given", [0, -1, 1.5, "two", True, 129, [1]])
def test_no_number_of_choices(given: Any) -> None:
    """The error names the field, its value and the bounds."""
    with pytest.raises(InvalidRequest, match=r"^n=.*: use 1 to 128$"):
        chat.parse({"messages": HELLO, "n": given}, "fake:1")


def test_what_asks_for_nothing() -> None:
    """Options of a stream that ask for no usage, and no log-probabilities said as false, are no reason to refuse a body."""
    for options in ({}, {"include_usage": False}, {"include_usage": None}):
        assert chat.parse({"messages": HELLO, "stream_options": options}, "fake:1").include_usage is False
    (values,) = completions.parse({"prompt": "hello", "logprobs": False}, "fake:1").values
    assert "logprobs" not in values
    (values,) = completions.parse({"prompt": "hello", "logprobs": 0}, "fake:1").values
    assert (values["logprobs"], values["top_logprobs"]) == (True, 0)

"""The parameters of ``embed``: OpenAI's forms of input, bounds, and what every error says."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.client.request.embedding import EMBEDDING, MAX_INPUTS
from tasks.client.request.prompt import MAX_PROMPT_BYTES
from tasks.client.sending.redaction import redact
from tasks.errors import InvalidRequest


def parse(values: dict[str, Any], previous: Any = None, defaults: dict[str, Any] | None = None) -> Any:
    return EMBEDDING.parse(previous, values, defaults or {})


@pytest.mark.parametrize(
    ("given", "inputs"),
    [
        ("one", ("one",)),
        (["one", "two"], ("one", "two")),
        (("one", "two"), ("one", "two")),
        ([1, 2, 3], ((1, 2, 3),)),
        ([[1, 2], [3]], ((1, 2), (3,))),
        (["one", [1, 2]], ("one", (1, 2))),
    ],
)
def test_openais_forms_of_input(given: Any, inputs: tuple[Any, ...]) -> None:
    """One text, several, the tokens of one input, or of several."""
    assert parse({"input": given}).input == inputs


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "input is missing; give one text, or a list of 1 to 2048 texts"),
        ({"input": 5}, "input=5: no text, and no list with texts; give one text"),
        ({"input": ""}, "input=<str>: input[0] is empty; give some text"),
        ({"input": ["a", "", "b"]}, "input[1] is empty; give some text"),
        ({"input": ["a", {"text": "b"}]}, "input[1] is a dict; give some text"),
        ({"input": ["a", [True]]}, "input[1] is a list; give some text"),
        ({"input": ["a", [-1]]}, "input[1] is a list; give some text"),
        ({"input": ["a\ud800"]}, "input[0] has '\\ud800', one half of a character, at 1"),
        (
            {"input": ["a"] * (MAX_INPUTS + 1)},
            f"{MAX_INPUTS + 1} inputs; the limit is {MAX_INPUTS}; send several requests",
        ),
        (
            {"input": ["a" * MAX_PROMPT_BYTES, "b"]},
            f"{MAX_PROMPT_BYTES + 1} bytes in all; the limit is {MAX_PROMPT_BYTES}",
        ),
        ({"input": "a", "dimensions": 0}, "dimensions=0: input should be greater than or equal to 1; use 1 or more"),
        ({"input": "a", "dimensions": True}, "dimensions=True: input should be a number"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format='int8': input should be 'float' or 'base64'"),
        ({"input": "a", "prompt": "b"}, "prompt=<str>: not a field of embed: use input, with texts"),
        ({"input": "a", "countdown": 5}, "countdown=5: an option and not a field of embed: use embed.apply_async"),
        ({"input": "a", "dimension": 5}, "dimension=5: unknown field; did you mean dimensions?"),
        ({"input": "a", "deadline": 5}, "deadline=5: input should be greater"),
        ({"input": "a", "require_worker": 1}, "require_worker=1: input should be True or False"),
    ],
)
def test_what_is_refused(values: dict[str, Any], said: str) -> None:
    """The error names the field, the value unless it is somebody's words, and the remedy."""
    with pytest.raises(InvalidRequest) as raised:
        parse(values)
    assert said in str(raised.value)


def test_what_other_clients_send_anyway() -> None:
    """``None`` is left out, ``user`` goes into the metadata, and defaults of other tasks are not looked at."""
    parameters = parse(
        {"input": "a", "dimensions": None, "user": "ann"}, defaults={"temperature": 0.0, "input_type": "query"}
    )
    assert (parameters.metadata, parameters.dimensions, parameters.input_type) == ({"user": "ann"}, None, "query")


def test_an_answer_before_it_in_a_chain_is_its_input() -> None:
    """One answer, or a chord's answers; an input beside it would be passed over, so that is refused."""
    assert parse({}, previous={"text": "hello"}).input == ("hello",)
    assert parse({}, previous=[{"text": "one"}, "two"]).input == ("one", "two")
    with pytest.raises(InvalidRequest, match="input is set, and a task before this one has an answer"):
        parse({"input": "a"}, previous={"text": "hello"})


def test_monitors_see_no_text() -> None:
    """The number of inputs and of characters, and the fields that are no text."""
    shown = redact({"input": ["secret", "words"], "model": "m", "dimensions": 8})
    assert "secret" not in shown
    assert "input=<2 inputs" in shown
    assert "dimensions=8" in shown

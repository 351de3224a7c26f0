"""The load of answers that are data knows a wrong one."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.chaos.answers import KINDS, Answers
from benchmarks.chaos.judge import Reading, Way
from benchmarks.chaos.mix import Said, said
from tasks.client.reader.chunks import Chunk
from tasks.messages.tools import delta

PERSON = {"name": "Ann", "age": 3, "tags": ["a"]}


def fault(kind: str, **answer: Any) -> str | None:
    """What is found wrong with an answer to a request of this kind."""
    reading = Reading(list(KINDS).index(kind), 0, Way.STREAM)
    whole = {"text": "", "reasoning": "hm", "tool_calls": None, "parsed": None, "finish_reason": "stop", **answer}
    return Answers().fault(reading, whole)


def call(arguments: str) -> list[dict[str, Any]]:
    return [{"id": "x", "type": "function", "function": {"name": "note", "arguments": arguments}}]


def test_right_answers() -> None:
    """Of each kind; one that was cut off has no value."""
    assert fault("schema", parsed=PERSON) is fault("thought and schema", parsed=PERSON) is None
    assert fault("call", tool_calls=call('{"name": "", "age": 0, "tags": ["a"]}')) is None
    assert fault("choice", text="neither") is fault("regex", text="ABCDEFGH-123456789012") is None
    assert fault("grammar", text=f"({'a' * 20})") is fault("schema", finish_reason="length") is None


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("schema", {"parsed": {**PERSON, "age": 151}}),
        ("schema", {"parsed": None}),
        ("schema", {"parsed": PERSON, "finish_reason": "length"}),
        ("thought and schema", {"parsed": PERSON, "reasoning": None}),
        ("call", {"tool_calls": call("{}"), "finish_reason": "tool_calls"}),
        ("call", {"text": "no call"}),
        ("call", {"tool_calls": call("{}"), "warnings": ["x"]}),
        ("choice", {"text": "the first and the second"}),
        ("regex", {"text": "A"}),
    ],
    ids=str,
)
def test_wrong_answers(kind: str, answer: dict[str, Any]) -> None:
    """An invalid value, no value, a value of half an answer, a thought or a call that is missing."""
    assert fault(kind, **answer)


def test_a_stream_says_what_the_result_says() -> None:
    """Thought, text and calls, however they were cut."""
    heard = Said()
    heard.add(Chunk(text="h", index=0, kind="reasoning"))
    heard.add(Chunk(text="m", index=1, kind="reasoning"))
    heard.add(Chunk(text="{", index=2, kind="tool_call", tool_call=delta(0, "{", "id", "note")))
    heard.add(Chunk(text="}", index=3, kind="tool_call", tool_call=delta(0, "}")))
    assert str(heard) == said({"text": "", "reasoning": "hm", "tool_calls": call("{}")})
    assert said({"text": "a", "reasoning": None, "tool_calls": None}) == "a"

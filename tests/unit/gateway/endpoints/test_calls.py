"""Calls of functions over HTTP: OpenAI's shapes, for any reader, from any place on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tasks.client.reader.chunks import Chunk
from tasks.gateway.endpoints.chat import ChatShape
from tasks.gateway.endpoints.pieces import Choice, Finish
from tasks.gateway.endpoints.response_shape import ResponseShape
from tasks.gateway.records.record import Record
from tasks.messages.tools import Calls, delta

RECORD = Record(id="r1", kind="chat", model="m", created=1)
PARTS = [
    delta(0, "", "c1", "add"),
    delta(0, '{"a":'),
    delta(0, "1}"),
    delta(1, "{}", "c2", "ping"),
]
CHUNKS = [
    Chunk(text="Hm", index=0, ids=[1]),
    *(
        Chunk(text=part["function"]["arguments"], index=n + 1, ids=[n + 2], kind="tool_call", tool_call=part)
        for n, part in enumerate(PARTS)
    ),
    Chunk(text="", index=5, finish_reason="tool_calls", usage={}),
]
CALLS = [
    {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}},
    {"id": "c2", "type": "function", "function": {"name": "ping", "arguments": "{}"}},
]


def events(shape: Any, choice: Choice) -> list[dict[str, Any]]:
    """The data of a stream's events."""
    said = [shape.say(piece) for chunk in CHUNKS for piece in choice.take(chunk)]
    lines = b"".join(said).decode().splitlines()
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


def test_chat() -> None:
    """Deltas have id and name once and join to the calls; the whole message has the same calls."""
    choice = Choice(0)
    found = Calls()
    for event in events(ChatShape(RECORD), choice):
        for part in event["choices"][0]["delta"].get("tool_calls", ()):
            found.add(part)
    assert found.as_message() == CALLS
    whole = ChatShape(RECORD).whole([choice])["choices"][0]
    assert whole["message"]["tool_calls"] == CALLS
    assert whole["message"]["content"] == "Hm"
    assert whole["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("after", range(15))
def test_a_stream_that_goes_on(after: int) -> None:
    """From each place on, what a client had and what it gets are the calls: no name and no character comes twice."""
    whole = Choice(0)
    first = [piece for chunk in CHUNKS for piece in whole.take(chunk)]
    had = [piece for piece in first if piece.place <= after]
    place = max((piece.place for piece in had), default=0)
    rest_of = Choice(0, place)
    rest = [piece for chunk in CHUNKS for piece in rest_of.take(chunk)]
    found = Calls()
    for piece in (*had, *rest):
        if not isinstance(piece, Finish) and piece.tool_call is not None:
            found.add(piece.tool_call)
    assert found.as_message() == CALLS
    names = [piece for piece in (*had, *rest) if not isinstance(piece, Finish) and "id" in (piece.tool_call or ())]
    assert len(names) == len(CALLS)


def test_responses() -> None:
    """Each call is an item of its own, with its arguments in deltas, and whole at its end."""
    shape = ResponseShape(RECORD)
    choice = Choice(0)
    found = events(shape, choice)
    added = [event["item"]["type"] for event in found if event["type"] == "response.output_item.added"]
    assert added == ["message", "function_call", "function_call"]
    deltas = [event["delta"] for event in found if event["type"] == "response.function_call_arguments.delta"]
    assert deltas == ['{"a":', "1}", "{}"]
    done = [event["item"] for event in found if event["type"] == "response.output_item.done"]
    calls = [(item["call_id"], item["name"], item["arguments"]) for item in done if item["type"] == "function_call"]
    assert calls == [("c1", "add", '{"a":1}'), ("c2", "ping", "{}")]
    numbers = [event["sequence_number"] for event in found]
    assert numbers == sorted(set(numbers))
    output = shape.whole([choice])["output"]
    assert [item["type"] for item in output] == added

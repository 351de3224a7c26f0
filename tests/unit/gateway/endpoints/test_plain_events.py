"""Events that are text alone are put together by hand: they are the JSON that OpenAI's types take, whatever the text is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletionChunk

from tasks.client.reader.chunks import Chunk
from tasks.gateway.endpoints.chat import ChatShape
from tasks.gateway.endpoints.completions import CompletionShape
from tasks.gateway.endpoints.pieces import Choice
from tasks.gateway.records.record import Record

ODD = '"quoted" \\ \n\r\u2028\x00\x1f </script> é 😀 data: [DONE]\n\n'


def data_of(event: bytes) -> dict[str, Any]:
    """What the one event says, which has one line of data."""
    (line,) = [line for line in event.decode().split("\n") if line.startswith("data: ")]
    found: dict[str, Any] = json.loads(line.removeprefix("data: "))
    return found


@pytest.mark.parametrize("include_usage", [False, True])
def test_a_chat(include_usage: bool) -> None:
    """The text of each kind under its name, and all that every event has."""
    shape = ChatShape(Record(id="c1", kind="chat", model='a"b', created=7, choices=2, include_usage=include_usage))
    choice = Choice(1)
    for kind, name in (("content", "content"), ("reasoning", "reasoning_content")):
        (piece,) = choice.take(Chunk(text=ODD, index=0, ids=[1], kind=kind))
        found = data_of(shape.say(piece))
        ChatCompletionChunk.model_validate(found, strict=True)
        expected = {"index": 1, "delta": {name: ODD}, "logprobs": None, "finish_reason": None}
        head = {"id": "c1", "object": "chat.completion.chunk", "created": 7, "model": 'a"b'}
        assert found == {**head, "choices": [expected], **({"usage": None} if include_usage else {})}
    assert shape.say(piece).startswith(f"id: c1:0.{2 * len(ODD)}\n".encode())


def test_a_completion() -> None:
    """The same of a raw prompt's answer."""
    shape = CompletionShape(Record(id="c2", kind="completion", model="m", created=7))
    (piece,) = Choice(0).take(Chunk(text=ODD, index=0, ids=[1]))
    found = data_of(shape.say(piece))
    assert found["choices"] == [{"index": 0, "text": ODD, "logprobs": None, "finish_reason": None}]
    # A chunk of a stream has no reason for its end yet, which the type of a whole answer requires.
    Completion.model_validate({**found, "choices": [{**found["choices"][0], "finish_reason": "stop"}]}, strict=True)

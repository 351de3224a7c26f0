"""``/v1/chat/completions``: from its body to requests, and from their pieces to its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.client.answers.openai_shape import chat_logprobs, message_of, openai_reason
from tasks.errors import InvalidRequest
from tasks.gateway.endpoints.choice_shape import ChoiceShape
from tasks.gateway.endpoints.fields import CHAT, NOT_CHAT, passed
from tasks.gateway.endpoints.order import (
    MAX_CHOICES,
    Order,
    flag,
    model_of,
    number,
    service_tier_of,
    several,
    wants_usage,
)
from tasks.gateway.endpoints.pieces import Finish
from tasks.messages.encoding import to_compact_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tasks.gateway.endpoints.pieces import Choice, Piece

PREFIX = "chatcmpl-"
#: The names that deltas and messages have for kinds of text.
_NAMES = {"content": "content", "reasoning": "reasoning_content"}


def parse(body: Mapping[str, Any], default_model: str) -> Order:
    """Turn a body into an order.

    Raises:
        InvalidRequest: a field that the gateway reads itself is wrong; ``generate`` checks the others.
    """
    stream = flag(body, "stream")
    include_usage = wants_usage(body, stream=stream)
    values = passed(body, CHAT, NOT_CHAT)
    if values.get("messages") is None:
        raise InvalidRequest("messages: missing; give a list with a message or more")
    values["model"] = model_of(body, default_model)
    return Order(
        kind="chat",
        model=values["model"],
        values=several(values, number(body, "n", 1, 1, MAX_CHOICES)),
        stream=stream,
        include_usage=include_usage,
        service_tier=service_tier_of(body),
    )


class ChatShape(ChoiceShape):
    """A chat's answer."""

    WHOLE, CHUNK = "chat.completion", "chat.completion.chunk"

    def begin(self) -> list[bytes]:
        """The first events of a stream; none for a client that has them."""
        if self.reads_from:
            return []
        delta = {"role": "assistant", "content": ""}
        return [self._chunk(_delta(number, delta)) for number in range(self._record.choices)]

    def say(self, part: Piece | Finish) -> bytes:
        """The event for a piece of the answer."""
        if isinstance(part, Finish):
            return self._choice_event(part, _delta(part.choice, {}, part.logprobs, openai_reason(part.reason)))
        if part.tool_call is not None:
            return self._choice_event(part, _delta(part.choice, {"tool_calls": [part.tool_call]}, part.logprobs))
        if part.kind in _NAMES and not part.logprobs:
            return self._plain_event(part, f'"delta":{{"{_NAMES[part.kind]}":{to_compact_json(part.text)}}}')
        return self._choice_event(
            part, _delta(part.choice, {_NAMES.get(part.kind, part.kind): part.text}, part.logprobs)
        )

    def _choice(self, choice: Choice) -> dict[str, Any]:
        assert choice.finish is not None
        calls = choice.calls.as_message() if choice.calls else None
        return {
            "index": choice.number,
            "message": message_of(choice.text("content"), choice.text("reasoning"), calls),
            "logprobs": chat_logprobs(choice.logprobs),
            "finish_reason": openai_reason(choice.finish.reason),
        }


def _delta(
    number: int,
    delta: dict[str, Any],
    logprobs: Sequence[Mapping[str, Any]] | None = None,
    finish_reason: str | None = None,
) -> dict[str, Any]:
    return {"index": number, "delta": delta, "logprobs": chat_logprobs(logprobs), "finish_reason": finish_reason}

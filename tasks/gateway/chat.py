"""``/v1/chat/completions``: from its body to requests, and from their pieces to its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.gateway import frames
from tasks.gateway.fields import CHAT, passed
from tasks.gateway.order import MAX_CHOICES, Order, flag, model_of, number, several, wants_usage
from tasks.gateway.pieces import Finish
from tasks.gateway.usage import usage_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tasks.gateway.pieces import Choice, Piece
    from tasks.gateway.record import Record
    from tasks.gateway.refusal import Refusal

PREFIX = "chatcmpl-"
#: The names that deltas and messages have for kinds of text.
_NAMES = {"content": "content", "reasoning": "reasoning_content"}
#: OpenAI has no reason of its own for an answer that its deadline has cut.
_REASONS = {"deadline": "length"}


def parse(body: Mapping[str, Any]) -> Order:
    """What a body asks for.

    Raises:
        InvalidRequest: a field that the gateway reads itself is wrong; ``generate`` checks the others.
    """
    stream = flag(body, "stream")
    include_usage = wants_usage(body, stream=stream)
    values = passed(body, CHAT)
    values["model"] = model_of(body)
    return Order(
        kind="chat",
        model=values["model"],
        values=several(values, number(body, "n", 1, 1, MAX_CHOICES)),
        stream=stream,
        include_usage=include_usage,
        service_tier=body.get("service_tier") or "auto",
    )


class ChatShape:
    """The answer's shape.

    Args:
        record: what is known of the request.
        places: how much of each choice the client has.
    """

    def __init__(self, record: Record, places: Sequence[int] = ()) -> None:
        self._record = record
        self.reads_from = places
        self._places = [*places] or [0] * record.choices

    def begin(self) -> list[bytes]:
        """The first events of a stream; none for a client that has them."""
        if self.reads_from:
            return []
        delta = {"role": "assistant", "content": ""}
        return [self._chunk(number, delta) for number in range(self._record.choices)]

    def say(self, said: Piece | Finish) -> bytes:
        """The event for a piece of the answer."""
        self._places[said.choice] = said.place
        if isinstance(said, Finish):
            return self._chunk(said.choice, {}, said.logprobs, openai_reason(said))
        if said.tool_call is not None:
            return self._chunk(said.choice, {"tool_calls": [said.tool_call]}, said.logprobs)
        return self._chunk(said.choice, {_NAMES.get(said.kind, said.kind): said.text}, said.logprobs)

    def note(self, said: Piece | Finish) -> None:
        """Nothing: :meth:`whole` takes it from the choices."""

    def end(self, choices: Sequence[Choice]) -> list[bytes]:
        """The last events of a stream."""
        if not self._record.include_usage:
            return [frames.DONE]
        return [self._event({"choices": [], "usage": usage_of(choices)}), frames.DONE]

    def fail(self, refusal: Refusal) -> list[bytes]:
        """The last event of a stream whose request has failed: without it SDKs take a cut stream for a whole answer."""
        return [frames.event(refusal.body)]

    def whole(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """The answer of a request without a stream."""
        return {
            **self._head("chat.completion"),
            "choices": [_choice(choice) for choice in choices],
            "usage": usage_of(choices),
        }

    def _chunk(
        self,
        number: int,
        delta: dict[str, Any],
        logprobs: list[dict[str, Any]] | None = None,
        finish_reason: str | None = None,
    ) -> bytes:
        choice = {"index": number, "delta": delta, "logprobs": _logprobs(logprobs), "finish_reason": finish_reason}
        return self._event({"choices": [choice], **({"usage": None} if self._record.include_usage else {})})

    def _event(self, data: dict[str, Any]) -> bytes:
        return frames.event({**self._head("chat.completion.chunk"), **data}, event_id(self._record.id, self._places))

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._record.id, "object": kind, "created": self._record.created, "model": self._record.model}


def openai_reason(finish: Finish) -> str:
    """Why a choice has ended, in OpenAI's words."""
    return _REASONS.get(finish.reason, finish.reason)


def event_id(response_id: str, places: Sequence[int]) -> str:
    """The id of an event, from which its stream can be continued."""
    return f"{response_id}:{'.'.join(map(str, places))}"


def _choice(choice: Choice) -> dict[str, Any]:
    assert choice.finish is not None
    message: dict[str, Any] = {"role": "assistant", "content": choice.text("content"), "refusal": None}
    if reasoning := choice.text("reasoning"):
        message["reasoning_content"] = reasoning
    if choice.calls:
        message |= {"content": message["content"] or None, "tool_calls": choice.calls.as_message()}
    return {
        "index": choice.number,
        "message": message,
        "logprobs": _logprobs(choice.logprobs),
        "finish_reason": openai_reason(choice.finish),
    }


def _logprobs(logprobs: Sequence[Mapping[str, Any]] | None) -> dict[str, Any] | None:
    return {"content": logprobs, "refusal": None} if logprobs else None

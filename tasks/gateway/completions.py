"""``/v1/completions``: raw prompts, several in one request, in OpenAI's older shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.errors import InvalidRequest
from tasks.gateway import frames
from tasks.gateway.chat import event_id, openai_reason
from tasks.gateway.fields import COMPLETIONS, passed
from tasks.gateway.order import MAX_CHOICES, Order, flag, model_of, number, several, wants_usage
from tasks.gateway.pieces import Finish
from tasks.gateway.usage import usage_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tasks.gateway.pieces import Choice, Piece
    from tasks.gateway.record import Record
    from tasks.gateway.refusal import Refusal

PREFIX = "cmpl-"


def parse(body: Mapping[str, Any]) -> Order:
    """What a body asks for.

    Raises:
        InvalidRequest: a field that the gateway reads itself is wrong; ``generate`` checks the others.
    """
    stream = flag(body, "stream")
    include_usage = wants_usage(body, stream=stream)
    values = passed(body, COMPLETIONS)
    values["model"] = model_of(body)
    if body.get("logprobs") is not None:
        values |= {"logprobs": True, "top_logprobs": number(body, "logprobs", 0, 0, 20)}
    prompts = _prompts(body)
    count = number(body, "n", 1, 1, MAX_CHOICES // len(prompts))
    return Order(
        kind="completion",
        model=values["model"],
        values=[values_ for prompt in prompts for values_ in several({**values, "prompt": prompt}, count)],
        stream=stream,
        include_usage=include_usage,
        echo={"prompts": len(prompts)},
    )


def _prompts(body: Mapping[str, Any]) -> list[str]:
    prompt = body.get("prompt")
    prompts = [prompt] if isinstance(prompt, str) else prompt
    if not isinstance(prompts, list) or not prompts or not all(isinstance(text, str) for text in prompts):
        raise InvalidRequest("prompt: use a text, or a list of texts; token ids are not taken")
    if len(prompts) > MAX_CHOICES:
        raise InvalidRequest(f"prompt: at most {MAX_CHOICES} texts, got {len(prompts)}")
    return prompts


class CompletionShape:
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
        """Nothing: a chunk says all of itself."""
        return []

    def say(self, said: Piece | Finish) -> bytes:
        """The event for a piece of the answer."""
        self._places[said.choice] = said.place
        text, reason = ("", openai_reason(said)) if isinstance(said, Finish) else (said.text, None)
        choice = {"index": said.choice, "text": text, "logprobs": _logprobs(said.logprobs), "finish_reason": reason}
        return self._event({"choices": [choice], **({"usage": None} if self._record.include_usage else {})})

    def note(self, said: Piece | Finish) -> None:
        """Nothing: :meth:`whole` takes it from the choices."""

    def end(self, choices: Sequence[Choice]) -> list[bytes]:
        """The last events of a stream."""
        if not self._record.include_usage:
            return [frames.DONE]
        return [self._event({"choices": [], "usage": self._usage(choices)}), frames.DONE]

    def fail(self, refusal: Refusal) -> list[bytes]:
        """The last event of a stream whose request has failed: without it SDKs take a cut stream for a whole answer."""
        return [frames.event(refusal.body)]

    def whole(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """The answer of a request without a stream."""
        found = []
        for choice in choices:
            assert choice.finish is not None
            found.append(
                {
                    "index": choice.number,
                    "text": choice.text("content"),
                    "logprobs": _logprobs(choice.logprobs),
                    "finish_reason": openai_reason(choice.finish),
                }
            )
        return {**self._head(), "choices": found, "usage": self._usage(choices)}

    def _usage(self, choices: Sequence[Choice]) -> dict[str, Any]:
        return usage_of(choices, self._record.echo.get("prompts", 1))

    def _event(self, data: dict[str, Any]) -> bytes:
        return frames.event({**self._head(), **data}, event_id(self._record.id, self._places))

    def _head(self) -> dict[str, Any]:
        record = self._record
        return {"id": record.id, "object": "text_completion", "created": record.created, "model": record.model}


def _logprobs(logprobs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """OpenAI's older shape: lists side by side."""
    if not logprobs:
        return None
    return {
        "tokens": [logprob["token"] for logprob in logprobs],
        "token_logprobs": [logprob["logprob"] for logprob in logprobs],
        "top_logprobs": [{top["token"]: top["logprob"] for top in logprob["top_logprobs"]} for logprob in logprobs],
        "text_offset": [],
    }

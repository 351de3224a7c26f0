"""``/v1/completions``: raw prompts, several in one request, in OpenAI's older shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.client.answers.openai_shape import completion_logprobs, openai_reason
from tasks.errors import InvalidRequest
from tasks.gateway.endpoints.choice_shape import ChoiceShape
from tasks.gateway.endpoints.fields import COMPLETIONS, NOT_COMPLETIONS, passed
from tasks.gateway.endpoints.order import MAX_CHOICES, Order, flag, model_of, number, several, wants_usage
from tasks.gateway.endpoints.pieces import Finish, Piece
from tasks.messages.encoding import to_compact_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.gateway.endpoints.pieces import Choice

PREFIX = "cmpl-"


def parse(body: Mapping[str, Any], default_model: str) -> Order:
    """Turn a body into an order.

    Raises:
        InvalidRequest: a field that the gateway reads itself is wrong; ``generate`` checks the others.
    """
    stream = flag(body, "stream")
    include_usage = wants_usage(body, stream=stream)
    values = passed(body, COMPLETIONS, NOT_COMPLETIONS)
    values["model"] = model_of(body, default_model)
    if body.get("logprobs") is not None and body["logprobs"] is not False:
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


class CompletionShape(ChoiceShape):
    """The answer to raw prompts."""

    WHOLE = CHUNK = "text_completion"

    def begin(self) -> list[bytes]:
        """Nothing: a chunk says all of itself."""
        return []

    def say(self, part: Piece | Finish) -> bytes:
        """The event for a piece of the answer."""
        if isinstance(part, Piece) and not part.logprobs:
            return self._plain_event(part, f'"text":{to_compact_json(part.text)}')
        text, reason = ("", openai_reason(part.reason)) if isinstance(part, Finish) else (part.text, None)
        logprobs = completion_logprobs(part.logprobs, self._places[part.choice])
        return self._choice_event(
            part, {"index": part.choice, "text": text, "logprobs": logprobs, "finish_reason": reason}
        )

    def _choice(self, choice: Choice) -> dict[str, Any]:
        assert choice.finish is not None
        return {
            "index": choice.number,
            "text": choice.text("content"),
            "logprobs": completion_logprobs(choice.logprobs),
            "finish_reason": openai_reason(choice.finish.reason),
        }

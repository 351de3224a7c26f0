"""Parts of an answer in the shape of OpenAI's interface: the gateway's answers and the lines of batches have the same ones."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: OpenAI has no reason of its own for an answer that its deadline has cut.
_REASONS = {"deadline": "length"}


def openai_reason(reason: str) -> str:
    """Return the reason for an answer's end, in OpenAI's words."""
    return _REASONS.get(reason, reason)


def message_of(text: str, reasoning: str | None, tool_calls: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    """The message of a chat's whole answer."""
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if reasoning:
        message["reasoning_content"] = reasoning
    if tool_calls:
        message |= {"content": text or None, "tool_calls": list(tool_calls)}
    return message


def chat_logprobs(logprobs: Sequence[Mapping[str, Any]] | None) -> dict[str, Any] | None:
    """The log-probabilities of a chat's answer."""
    return {"content": logprobs, "refusal": None} if logprobs else None


def completion_logprobs(logprobs: Sequence[Mapping[str, Any]] | None, begin: int = 0) -> dict[str, Any] | None:
    """OpenAI's older shape: lists side by side; the first token begins at this character of the answer."""
    if not logprobs:
        return None
    return {
        "tokens": [logprob["token"] for logprob in logprobs],
        "token_logprobs": [logprob["logprob"] for logprob in logprobs],
        "top_logprobs": [{top["token"]: top["logprob"] for top in logprob["top_logprobs"]} for logprob in logprobs],
        "text_offset": list(accumulate((len(logprob["token"]) for logprob in logprobs[:-1]), initial=begin)),
    }

"""Shared by all wires about answers: kinds of text, finish reasons, usage. The only place that lists them."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

#: ``reasoning`` is what a model thinks, or says in a channel that is not for the user; ``content`` is the answer;
#: ``tool_call`` is the JSON text of a function's arguments.
Kind: TypeAlias = Literal["content", "reasoning", "tool_call"]

#: ``stop``: an end token or a stop string; ``length``: ``max_tokens``; ``tool_calls``: it ended, and calls functions;
#: ``cancelled``: its producer; ``deadline``: its time.
FinishReason: TypeAlias = Literal["stop", "length", "tool_calls", "cancelled", "deadline"]

#: Counts of tokens, in OpenAI's shape.
Usage: TypeAlias = dict[str, Any]


def usage_of(prompt_tokens: int, cached_tokens: int, completion_tokens: int, reasoning_tokens: int) -> Usage:
    """The usage of a request. ``completion_tokens`` counts all tokens, those of the reasoning included, as OpenAI does."""
    return {
        "prompt_tokens": prompt_tokens,
        "cached_tokens": cached_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "completion_tokens_details": {"reasoning_tokens": reasoning_tokens},
    }

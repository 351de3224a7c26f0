"""The usage of an answer of several choices, in OpenAI's shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.gateway.endpoints.pieces import Choice


def usage_of(choices: Sequence[Choice], prompts: int = 1) -> dict[str, Any]:
    """The tokens of an answer. Choices of one prompt share it, so that it counts once.

    Args:
        choices: all of the answer, those of each prompt beside each other.
        prompts: how many prompts the request has.
    """
    usages = [choice.finish.usage for choice in choices if choice.finish is not None]
    first_of_prompt = usages[:: max(1, len(choices) // prompts)]
    prompt = sum(usage.get("prompt_tokens", 0) for usage in first_of_prompt)
    cached = sum(usage.get("cached_tokens", 0) for usage in first_of_prompt)
    completion = sum(usage.get("completion_tokens", 0) for usage in usages)
    reasoning = sum(usage.get("completion_tokens_details", {}).get("reasoning_tokens", 0) for usage in usages)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }

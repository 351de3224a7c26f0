"""A prompt as the model reads it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, frozen=True)
class Prompt:
    """A tokenised prompt.

    ``tail`` is the text that the chat template put behind the last word of the request's own: what the answer begins in.
    """

    ids: list[int]
    tail: str = ""

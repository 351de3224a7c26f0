"""The prompt of a request: messages, or a text."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from tasks.client.request.conversation import ChatMessage  # noqa: TC001  (pydantic reads it)

MAX_PROMPT_BYTES = 4 * 1024 * 1024
#: The parameters that requests have which differ in nothing else.
PROMPTS = ("messages", "prompt")


class Prompt(BaseModel):
    """The prompt: exactly one of ``messages`` and ``prompt`` (raw text, no chat template).

    A field's description says what to do about a wrong value.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    messages: Annotated[
        list[ChatMessage] | None,
        Field(description='send a list of {"role": "user", "content": …} (json.loads(…) of JSON), or text as prompt'),
    ] = None
    prompt: Annotated[str | None, Field(description="send one text; several are several requests, as a group")] = None

    @model_validator(mode="after")
    def _one_prompt(self) -> Self:
        if self.messages is None and self.prompt is None:
            raise PydanticCustomError("prompt", "neither messages nor prompt is set: give exactly one of them")
        if self.messages is not None and self.prompt is not None:
            raise PydanticCustomError("prompt", "both messages and prompt are set: give exactly one of them")
        if self.messages is not None and not any(message.text for message in self.messages):
            raise PydanticCustomError("prompt", "messages=[…] has no text: give at least one message with content")
        if self.prompt is not None and not self.prompt:
            raise PydanticCustomError("prompt", "prompt='' is empty: give some text")
        try:
            prompt_bytes = self.prompt_bytes
        except UnicodeEncodeError as error:
            half = error.object[error.start]
            raise PydanticCustomError(
                "prompt", f"the prompt has {half!r}, one half of a character, at {error.start}: send whole text"
            ) from None
        if prompt_bytes > MAX_PROMPT_BYTES:
            raise PydanticCustomError(
                "prompt", f"the prompt has {prompt_bytes} bytes; the limit is {MAX_PROMPT_BYTES}: send less text"
            )
        return self

    @property
    def prompt_bytes(self) -> int:
        """The length of all prompt text in UTF-8."""
        if self.messages is None:
            return len((self.prompt or "").encode())
        return sum(message.size_bytes for message in self.messages)

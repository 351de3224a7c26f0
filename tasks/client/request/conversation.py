"""The messages of a conversation: OpenAI's shape, tool calls and their results included, and what a chat template gets of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator
from pydantic_core import PydanticCustomError

from tasks.client.request.fields import finite, refuse_number, size_bytes
from tasks.errors import InvalidRequest
from tasks.messages.depth import MAX_DEPTH, exceeds
from tasks.messages.encoding import to_compact_json

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

#: The branches of a union, which an error's path names and a person need not know.
TEXT, PARTS = "[text]", "[parts]"

#: Fields that an answer has and a conversation does not need: they say nothing to the model.
_OUTPUT_ONLY = (
    "annotations",
    "created",
    "created_at",
    "extra_content",
    "finish_reason",
    "id",
    "index",
    "logprobs",
    "model",
    "object",
    "parsed",
    "parsed_arguments",
    "provider_specific_fields",
    "status",
    "stop_reason",
    "stop_sequence",
    "usage",
)
#: Fields that mean something where they are true. Mistral's SDK sends each message with the first one.
_SWITCHES = ("prefix", "partial", "is_error")
#: Other clients' names for ``reasoning_content``.
_REASONING = ("reasoning", "thinking")
#: Types of parts that are text under the names of OpenAI's Responses API.
_TEXT_PARTS = ("input_text", "output_text")

#: A thought in shapes of providers' own.
_THOUGHT_BLOCKS = ("reasoning_details", "thinking_blocks")

#: Fields of a message, or of a part of its content, that mean something elsewhere, and what to do instead.
INSTEAD = {
    "audio": "only text is supported; leave it out",
    "cache_control": "prompts are cached without it; leave it out",
    "experimental_attachments": "only text is supported; leave it out",
    "files": "only text is supported; leave it out",
    "function_call": "use tool_calls",
    "images": "only text is supported; leave it out",
    "is_error": "say so in the content; leave it out",
    "partial": "an answer cannot be begun for the model; use prompt instead of messages",
    "prefix": "an answer cannot be begun for the model; use prompt instead of messages",
    "reasoning_details": "send its text as reasoning_content, or leave it out",
    "refusal": "send it as content",
    "thinking_blocks": "send its text as reasoning_content, or leave it out",
    "tool_name": "use tool_call_id",
    "weight": "a field of training data; leave it out",
}
_RESPONSES = (
    "an item of OpenAI's Responses API: send calls in the tool_calls of an assistant, results as messages of the role tool, "
    "and what was thought as reasoning_content"
)
#: What people put where a message belongs, by a key that it has and a message has not, and what to send.
_MISTAKEN = {
    "call_id": _RESPONSES,
    "summary": _RESPONSES,
    "data": "a message of LangChain: send what langchain_core.messages.convert_to_openai_messages makes of it",
    "message": "a response, or a choice of one: send the message in it",
    "choices": "a whole response: send its choices[0].message",
    "finish_reason": 'an answer: send {"role": "assistant", "content": …} with its text',
    "additional_kwargs": "a message of LangChain: send what langchain_core.messages.convert_to_openai_messages makes of it",
    "parts": 'a message of Google: send {"role": …, "content": …}',
}


class FunctionCall(BaseModel):
    """The function that a model called. ``arguments`` is an object, or its JSON as OpenAI has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1)]
    arguments: dict[str, Any] = {}

    @field_validator("arguments", mode="before")
    @classmethod
    def _arguments_may_be_json(cls, value: Any) -> Any:
        if isinstance(value, dict):
            size_bytes(value, "it")  # an error, where it is no JSON
        if not isinstance(value, str):
            return value
        try:
            # A model that calls a function without parameters may say nothing.
            found = json.loads(value, parse_constant=refuse_number, parse_float=finite) if value.strip() else {}
        except (ValueError, RecursionError):
            raise PydanticCustomError(
                "json", "are not a JSON object; send one, or leave the call and its result out"
            ) from None
        if found is None:
            return {}
        if exceeds(found, MAX_DEPTH):
            raise PydanticCustomError("json", f"are nested more than {MAX_DEPTH} levels deep; send flatter arguments")
        return found


class ToolCall(BaseModel):
    """One call of a tool, in the message of the assistant that made it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str | None = None
    type: Literal["function"] = "function"
    function: FunctionCall


class TextPart(BaseModel):
    """A part of a message's content."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One message of a conversation; ``content`` is text, or OpenAI's list of text parts.

    An assistant that calls tools may say nothing beside it: ``content`` is ``None`` then. A tool's result is a message of the
    role ``tool``, whose ``tool_call_id`` names the call. ``reasoning_content`` is what an assistant thought: the chat template
    decides what the model reads of it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Literal["system", "user", "assistant", "developer", "tool"]
    content: (
        Annotated[
            Annotated[str, Tag(TEXT)] | Annotated[list[TextPart], Tag(PARTS)],
            Discriminator(lambda value: PARTS if isinstance(value, list) else TEXT),
        ]
        | None
    ) = None
    name: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _belongs_together(self) -> ChatMessage:
        if self.tool_calls and self.role != "assistant":
            raise PydanticCustomError(
                "conversation", "has tool_calls, which only the role assistant has; leave them out"
            )
        if self.reasoning_content is not None and self.role != "assistant":
            raise PydanticCustomError(
                "conversation", "has reasoning_content, which only the role assistant has; leave it out"
            )
        if self.tool_call_id is not None and self.role != "tool":
            raise PydanticCustomError("conversation", "has tool_call_id, which only the role tool has; leave it out")
        # One with a thought alone was cut off in it.
        if self.content is None and not (self.tool_calls or self.reasoning_content):
            raise PydanticCustomError(
                "conversation", "has no content; send text, or, for an assistant that called tools, tool_calls"
            )
        return self

    @property
    def text(self) -> str:
        """The content as one string."""
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        return "".join(part.text for part in self.content)

    @property
    def size_bytes(self) -> int:
        """The length in UTF-8 of what the model is to read of it."""
        calls = [to_compact_json(call.model_dump()) for call in self.tool_calls or ()]
        others = (self.reasoning_content or "", self.name or "", self.tool_call_id or "")
        return sum(len(text.encode()) for text in (self.text, *others, *calls))

    def for_template(self) -> dict[str, Any]:
        """The message as chat templates expect it: content as one text, and a call's arguments as an object.

        ``content`` is ``None`` where an assistant only calls tools: some templates (DeepSeek's) tell a call by it, and the
        others take an empty text for the same.
        """
        found: dict[str, Any] = {"role": self.role, "content": self.text}
        if self.name is not None:
            found["name"] = self.name
        if self.tool_calls:
            found["content"] = self.text or None
            found["tool_calls"] = [call.model_dump(exclude_none=True) for call in self.tool_calls]
        if self.reasoning_content is not None:
            found["reasoning_content"] = self.reasoning_content
        if self.tool_call_id is not None:
            found["tool_call_id"] = self.tool_call_id
        return found


def tidied(message: Any, where: str) -> Any:
    """A message without fields that say nothing: null, empty, or of an answer's own; whatever else it is stays.

    Raises:
        InvalidRequest: it is something else that people take for a message.
    """
    if not isinstance(message, dict):
        return message
    for key, instead in _MISTAKEN.items():
        if key in message and "role" not in message:
            raise InvalidRequest(f"{where} is {instead}")
    kept = meaningful(message, ("role", "content"))
    if kept.get("role") == "assistant":
        _tell_a_thought_once(kept)
    if kept.get("type") == "message":
        del kept["type"]
    if isinstance(kept.get("content"), list):
        kept["content"] = [_tidied_part(part) for part in kept["content"]]
    if isinstance(kept.get("tool_calls"), list):
        kept["tool_calls"] = [_tidied_call(call) for call in kept["tool_calls"]]
    return kept


def _tell_a_thought_once(message: dict[str, Any]) -> None:
    """Have an assistant's thought under one name, in place: vLLM says it under two, others in blocks of their own too."""
    name = next((name for name in ("reasoning_content", *_REASONING) if isinstance(message.get(name), str)), None)
    if name is None:
        return
    thought = message["reasoning_content"] = message.pop(name)
    for other in _REASONING:
        if message.get(other) == thought:
            del message[other]
    for block in _THOUGHT_BLOCKS:
        message.pop(block, None)


def _tidied_part(part: Any) -> Any:
    if not isinstance(part, dict):
        return part
    kept = meaningful(part, ("type", "text"))
    return {**kept, "type": "text"} if kept.get("type") in _TEXT_PARTS else kept


def _tidied_call(call: Any) -> Any:
    """A call without the number that a stream's parts of it have in common, and without an SDK's or a provider's own notes."""
    if not isinstance(call, dict):
        return call
    kept = {
        name: value for name, value in call.items() if value is not None and (name == "id" or name not in _OUTPUT_ONLY)
    }
    if isinstance(kept.get("function"), dict):
        kept["function"] = {
            name: value
            for name, value in kept["function"].items()
            if not (name in _OUTPUT_ONLY or (value is None and name != "name"))
        }
    return kept


def meaningful(fields: Mapping[str, Any], always: Container[str]) -> dict[str, Any]:
    """The fields without those that say nothing to a model: null, empty, or of an answer's own; ``always`` names some to keep."""
    return {
        name: value
        for name, value in fields.items()
        if name in always or not (_is_empty(name, value) or name in _OUTPUT_ONLY)
    }


def _is_empty(name: str, value: Any) -> bool:
    return value is None or value in ("", [], {}) or (value is False and name in _SWITCHES)

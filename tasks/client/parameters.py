"""A request's parameters: OpenAI's names, mlx-lm's, four of ours; checked by the producer and again by the worker."""

from __future__ import annotations

import difflib
import json
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from tasks.errors import InvalidRequest
from tasks.messages.engine import Sampling

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic_core import ErrorDetails

MAX_TOKENS_DEFAULT = 512
MAX_PROMPT_BYTES = 4 * 1024 * 1024
MAX_EXTRA_BYTES = 16 * 1024
MAX_STOPS = 16
MAX_STOP_CHARACTERS = 256
MAX_LOGIT_BIAS = 1024

#: Where a chain's previous answer goes in ``prompt`` or in a message.
PREVIOUS = "{previous}"

#: Fields that people know from elsewhere, and what to do instead.
INSTEAD = {
    "stream": "every request streams; leave it out and read result.stream()",
    "max_completion_tokens": "use max_tokens",
    "n": "send the request n times, as a group",
    "best_of": "send the request several times, as a group",
    "tools": "tool calls are not supported yet; leave it out",
    "tool_choice": "tool calls are not supported yet; leave it out",
    "functions": "tool calls are not supported yet; leave it out",
    "response_format": "structured output is not supported yet; leave it out",
    "user": "use metadata",
    "logit_processors": "use logit_bias or the penalties",
    "input": "use messages or prompt",
    "keep_alive": "use keep_alive_s, in seconds",
    "timeout": "use apply_async(..., time_limit=seconds) or deadline",
}


#: The branches of a union, which an error's path names and a person need not know.
TEXT, PARTS = "[text]", "[parts]"


class ChatMessage(BaseModel):
    """One message of a conversation; ``content`` is text, or OpenAI's list of text parts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Literal["system", "user", "assistant", "developer", "tool"]
    content: Annotated[
        Annotated[str, Tag(TEXT)] | Annotated[list[TextPart], Tag(PARTS)],
        Discriminator(lambda value: PARTS if isinstance(value, list) else TEXT),
    ]
    name: str | None = None

    @property
    def text(self) -> str:
        """The content as one string."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class TextPart(BaseModel):
    """A part of a message's content."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["text"]
    text: str


Finite = Annotated[float, Field(allow_inf_nan=False)]
Penalty = Annotated[float, Field(ge=-2, le=2, allow_inf_nan=False)]


class Parameters(BaseModel):
    """What ``generate`` takes by keyword. Exactly one of ``messages`` and ``prompt`` (raw text, no chat template)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)

    messages: list[ChatMessage] | None = None
    prompt: str | None = None
    model: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] = MAX_TOKENS_DEFAULT
    temperature: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k: Annotated[int, Field(ge=0)] = 0
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    stop: tuple[str, ...] = ()
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=20)] = 0
    logit_bias: Annotated[dict[int, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=MAX_LOGIT_BIAS)] = {}
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    repetition_penalty: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    repetition_context_size: Annotated[int, Field(ge=1, le=4096)] = 20
    chat_template_kwargs: dict[str, Any] = {}
    deadline: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    keep_alive_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    require_worker: bool = False
    metadata: dict[str, Any] = {}

    @field_validator("stop", mode="before")
    @classmethod
    def _stop_may_be_one_string(cls, value: Any) -> Any:
        if value is None:
            return ()
        return (value,) if isinstance(value, str) else value

    @field_validator("stop")
    @classmethod
    def _stop_is_bounded(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(value) > MAX_STOPS:
            raise PydanticCustomError("stop", f"at most {MAX_STOPS} stop strings, got {len(value)}")
        for each in value:
            if not 1 <= len(each) <= MAX_STOP_CHARACTERS:
                raise PydanticCustomError("stop", f"each stop string has 1 to {MAX_STOP_CHARACTERS} characters")
        return value

    @field_validator("chat_template_kwargs", "metadata")
    @classmethod
    def _extra_is_small_json(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            size = len(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError, RecursionError):
            raise PydanticCustomError(
                "json", "must be plain JSON: strings, numbers, booleans, lists, objects"
            ) from None
        if size > MAX_EXTRA_BYTES:
            raise PydanticCustomError("size", f"is {size} bytes as JSON; the limit is {MAX_EXTRA_BYTES}")
        return value

    @model_validator(mode="after")
    def _one_prompt(self) -> Parameters:
        if self.messages is None and self.prompt is None:
            raise PydanticCustomError("prompt", "neither messages nor prompt is set: give exactly one of them")
        if self.messages is not None and self.prompt is not None:
            raise PydanticCustomError("prompt", "both messages and prompt are set: give exactly one of them")
        if self.messages is not None and not any(each.text for each in self.messages):
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
        if self.top_logprobs and not self.logprobs:
            raise PydanticCustomError("logprobs", f"top_logprobs={self.top_logprobs} needs logprobs=True")
        return self

    @property
    def prompt_bytes(self) -> int:
        """The length of all prompt text in UTF-8."""
        texts = [self.prompt or ""] if self.messages is None else [each.text for each in self.messages]
        return sum(len(text.encode()) for text in texts)

    def sampling(self, model: Mapping[str, float] | None = None) -> Sampling:
        """The part that the engine's sampler needs.

        Args:
            model: the model's own defaults, for fields that neither the request nor the catalogue sets.
        """
        ours = {each.name: getattr(self, each.name) for each in fields(Sampling)}
        return Sampling(
            **ours | {name: value for name, value in (model or {}).items() if name not in self.model_fields_set}
        )


class ParameterValues(TypedDict, total=False):
    """The same fields, for the signature of ``generate.delay``."""

    messages: list[dict[str, Any]]
    prompt: str
    model: str
    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    stop: str | list[str]
    seed: int
    logprobs: bool
    top_logprobs: int
    logit_bias: dict[int, float]
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    repetition_context_size: int
    chat_template_kwargs: dict[str, Any]
    deadline: float
    keep_alive_s: float
    require_worker: bool
    metadata: dict[str, Any]


def parse(values: dict[str, Any], defaults: dict[str, Any] | None = None) -> Parameters:
    """Check a request's keywords.

    Args:
        values: what the producer gave; ``None`` counts as left out, as OpenAI's clients send it.
        defaults: the model's own defaults, for what the producer left out.

    Raises:
        InvalidRequest: the message names the first wrong field, its value and the remedy.
    """
    given = {key: value for key, value in values.items() if value is not None}
    for name in given:
        if name not in Parameters.model_fields:
            raise InvalidRequest(_unknown(name))
    try:
        return Parameters.model_validate({**(defaults or {}), **given})
    except ValidationError as error:
        raise InvalidRequest(_explain(error)) from None


def redact(values: dict[str, Any]) -> str:
    """The request as monitors may see it: the model and lengths, no word of the prompt."""
    shown = []
    # The model first: monitors cut long lines.
    for name, value in sorted(values.items(), key=lambda item: item[0] != "model"):
        if name == "messages" and isinstance(value, list):
            characters = sum(len(str(each.get("content", ""))) for each in value if isinstance(each, dict))
            shown.append(f"messages=<{len(value)} messages, {characters} characters>")
        elif name == "prompt":
            shown.append(f"prompt=<{len(str(value))} characters>")
        elif name in ("model", "max_tokens", "temperature", "seed"):
            shown.append(f"{name}={value!r}")
    return f"{{{', '.join(shown)}}}"


def previous_of(args: Sequence[Any] | None) -> Any:
    """A chain's previous answer, which Celery gives as the one positional argument; ``None`` where there is none.

    Raises:
        InvalidRequest: there are several positional arguments.
    """
    if args and len(args) > 1:
        raise InvalidRequest(
            f"{len(args)} positional arguments: at most one is taken, the previous task's answer; give everything else by "
            "keyword"
        )
    return args[0] if args else None


def with_previous(previous: Any, values: dict[str, Any]) -> dict[str, Any]:
    """The keywords with a chain's previous answer put in.

    ``previous`` is an answer of ``generate``, a string, or a list of either (a chord's); lists are joined by blank lines. It
    replaces ``{previous}`` in the prompt or the messages; where there is none, it is put behind the prompt, or becomes one
    more user message.

    Raises:
        InvalidRequest: ``previous`` is something else.
    """
    if previous is None:
        return values
    text = _text_of(previous)
    prompt, messages = values.get("prompt"), values.get("messages")
    if isinstance(prompt, str):
        return {**values, "prompt": prompt.replace(PREVIOUS, text) if PREVIOUS in prompt else prompt + text}
    if not isinstance(messages, list | None):
        return values  # which parse refuses
    told = [_replaced(each, text) for each in messages or []]
    if told == (messages or []):
        told.append({"role": "user", "content": text})
    return {**values, "messages": told}


def _replaced(message: Any, text: str) -> Any:
    """A message with the previous answer in its content, be that one text or a list of parts."""
    if not isinstance(message, dict):
        return message
    content = message.get("content")
    if isinstance(content, str):
        return {**message, "content": content.replace(PREVIOUS, text)}
    if isinstance(content, list):
        return {**message, "content": [_part_replaced(part, text) for part in content]}
    return message


def _part_replaced(part: Any, text: str) -> Any:
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return {**part, "text": part["text"].replace(PREVIOUS, text)}
    return part


def _text_of(previous: Any) -> str:
    try:
        if isinstance(previous, str):
            return previous
        if isinstance(previous, list | tuple):
            return "\n\n".join(_text_of(each) for each in previous)
        return str(previous["text"])
    except (TypeError, KeyError, RecursionError):
        raise InvalidRequest(
            f"the positional argument is a {type(previous).__name__}: expected the previous task's answer (an object with "
            "'text'), a string, or a list of these; give everything else by keyword"
        ) from None


def _unknown(name: str) -> str:
    if name in INSTEAD:
        return f"{name}: not a field of generate: {INSTEAD[name]}"
    close = difflib.get_close_matches(name, Parameters.model_fields, n=1)
    hint = f"did you mean {close[0]}?" if close else f"the fields are {', '.join(Parameters.model_fields)}"
    # The name is anything that a client sent, and goes into logs.
    shown = name if name.isidentifier() and len(name) <= 60 else _short(name)
    return f"{shown}: unknown field; {hint}"


def _explain(error: ValidationError) -> str:
    first: ErrorDetails = error.errors(include_url=False, include_context=False)[0]
    if not first["loc"]:
        return first["msg"]
    steps = [step for step in first["loc"][1:] if step not in (TEXT, PARTS, "[key]")]
    where = str(first["loc"][0]) + "".join(f"[{step!r}]" for step in steps)
    message = first["msg"][0].lower() + first["msg"][1:]
    # The input of what is missing is the whole object around it.
    return f"{where}: {message}" if first["type"] == "missing" else f"{where}={_shown(first)}: {message}"


def _shown(error: ErrorDetails) -> str:
    """The wrong value, unless it may be somebody's words: errors are seen in logs and monitors."""
    is_prompt = error["loc"][0] in ("messages", "prompt") and error["loc"][-1] not in ("role", "type")
    if is_prompt and isinstance(error["input"], str | list | dict):
        return f"<{type(error['input']).__name__}>"
    return _short(error["input"])


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deeply, or an integer of thousands of digits
        return f"<{type(value).__name__}>"
    return text if len(text) <= 60 else f"{text[:57]}…"

"""A response of OpenAI's, and the items of its output."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tasks.client.reader.text_buffer import TextBuffer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tasks.gateway.records.record import Record
    from tasks.messages.answer import Usage

#: The values in a response of fields that its request has left out.
_DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        **dict.fromkeys(("instructions", "max_output_tokens", "prompt_cache_key", "safety_identifier", "user")),
        # The model's own, which its worker knows.
        **dict.fromkeys(("temperature", "top_p")),
        "metadata": {},
        "parallel_tool_calls": True,
        "reasoning": {"effort": None, "summary": None},
        "service_tier": "default",
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
    }
)
#: The same of objects, whose other fields the request may have.
_DEFAULT_PARTS: Mapping[str, Mapping[str, Any]] = {name: _DEFAULTS[name] for name in ("reasoning", "text")}
_FUNCTION_DEFAULTS = {"description": None, "parameters": None, "strict": False}
#: The prefix of an item's id, and the names of its events, by the kind of its text.
_PREFIXES = {"reasoning": "rs", "tool_call": "fc"}
_EVENTS = {"reasoning": "response.reasoning_text", "tool_call": "response.function_call_arguments"}


class OpenItem:
    """One item while its text comes: a thought, an answer, or the arguments of a call.

    Args:
        response_id: the response.
        number: its place in the output.
        kind: the kind of its text.
        call: a call's first part.
    """

    def __init__(self, response_id: str, number: int, kind: str, call: Mapping[str, Any] | None = None) -> None:
        self.number = number
        self.kind = kind
        self.call = call
        self.is_text = kind not in _EVENTS
        self.is_closed = False
        self._id = f"{_PREFIXES.get(kind, 'msg')}_{response_id}_{number}"
        self._text = TextBuffer()
        self._logprobs: list[Mapping[str, Any]] = []

    def add(self, text: str, logprobs: Sequence[Mapping[str, Any]]) -> None:
        """Take the next piece."""
        self._text.add(text)
        self._logprobs.extend(logprobs)

    @property
    def text(self) -> str:
        """All text so far."""
        return str(self._text)

    @property
    def delta_type(self) -> str:
        """The type of the events that have its text."""
        return f"{_EVENTS.get(self.kind, 'response.output_text')}.delta"

    @property
    def done_type(self) -> str:
        """The type of the event that has all of its text."""
        return f"{_EVENTS.get(self.kind, 'response.output_text')}.done"

    @property
    def where(self) -> dict[str, Any]:
        """The fields of its events that say to which item they belong."""
        place = {} if self.call is not None else {"content_index": 0}
        return {"item_id": self._id, "output_index": self.number, **place}

    @property
    def done(self) -> dict[str, Any]:
        """The fields of the event that has all of its text."""
        if self.call is not None:
            return {"name": self.call["function"].get("name"), "arguments": self.text}
        return {"text": self.text, **({"logprobs": []} if self.is_text else {})}

    def begun(self) -> dict[str, Any]:
        """The item before it has any text."""
        if self.is_text:
            return {"id": self._id, "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        if self.call is not None:
            named = {"call_id": self.call.get("id"), "name": self.call["function"].get("name")}
            return {"id": self._id, "type": "function_call", "status": "in_progress", **named, "arguments": ""}
        return {"id": self._id, "type": "reasoning", "status": "in_progress", "summary": [], "content": []}

    def whole(self) -> dict[str, Any]:
        """The item in its current state."""
        if self.call is not None:
            return {**self.begun(), "status": "completed", "arguments": self.text}
        if not self.is_text:
            thought = {"type": "reasoning_text", "text": self.text}
            return {**self.begun(), "status": "completed", "content": [thought]}
        part: dict[str, Any] = {"type": "output_text", "text": self.text, "annotations": []}
        if self._logprobs:
            part["logprobs"] = [_logprob(logprob) for logprob in self._logprobs]
        return {**self.begun(), "status": "completed", "content": [part]}


def response_object(
    record: Record,
    status: str,
    output: Sequence[Mapping[str, Any]],
    *,
    usage: Usage | None = None,
    error: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A response in its current state."""
    return {
        **_DEFAULTS,
        **{name: _completed(name, value) for name, value in record.echo.items()},
        "id": record.id,
        "object": "response",
        "created_at": record.created,
        "completed_at": None,
        "model": record.model,
        "status": status,
        "background": record.background,
        "error": error,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "max_tool_calls": None,
        "output": list(output),
        "previous_response_id": None,
        "store": True,
        "truncation": "disabled",
        "usage": None if usage is None else _usage(usage),
    }


def _completed(name: str, value: Any) -> Any:
    """Return a field of a request, with defaults for the parts that it left out."""
    if name in _DEFAULT_PARTS:
        return {**_DEFAULT_PARTS[name], **{name: part for name, part in value.items() if part is not None}}
    if name == "tools":
        return [{**_FUNCTION_DEFAULTS, **tool} for tool in value]
    if name == "service_tier" and value not in ("flex", "priority"):
        return _DEFAULTS[name]
    return value


def _usage(usage: Usage) -> dict[str, Any]:
    details = usage.get("completion_tokens_details", {})
    return {
        "input_tokens": usage.get("prompt_tokens", 0),
        "input_tokens_details": {"cached_tokens": usage.get("cached_tokens", 0), "cache_write_tokens": 0},
        "output_tokens": usage.get("completion_tokens", 0),
        "output_tokens_details": {"reasoning_tokens": details.get("reasoning_tokens", 0)},
        "total_tokens": usage.get("total_tokens", 0),
    }


def _logprob(token: Mapping[str, Any]) -> dict[str, Any]:
    """A token's log-probability, with the bytes that this shape requires."""
    top = [{**other, "bytes": list(other["token"].encode())} for other in token["top_logprobs"]]
    return {**token, "bytes": list(token["token"].encode()), "top_logprobs": top}

"""A response of OpenAI's, and the items of its output."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tasks.gateway.record import Record
    from tasks.messages.answer import Usage

_DELTAS = {"content": "response.output_text.delta", "reasoning": "response.reasoning_text.delta"}
_ENDS = {"content": "response.output_text.done", "reasoning": "response.reasoning_text.done"}


class OpenItem:
    """One item while its text comes: what the model thinks, or what it answers.

    Args:
        response_id: the response.
        number: its place in the output.
        kind: the kind of its text.
    """

    def __init__(self, response_id: str, number: int, kind: str) -> None:
        self.number = number
        self.kind = kind
        self.is_text = kind != "reasoning"
        self.is_closed = False
        self._id = f"{'msg' if self.is_text else 'rs'}_{response_id}_{number}"
        self._texts: list[str] = []
        self._logprobs: list[Mapping[str, Any]] = []

    def add(self, text: str, logprobs: Sequence[Mapping[str, Any]]) -> None:
        """Take what comes next."""
        self._texts.append(text)
        self._logprobs.extend(logprobs)

    @property
    def text(self) -> str:
        """All text so far."""
        return "".join(self._texts)

    @property
    def delta_type(self) -> str:
        """The type of the events that have its text."""
        return _DELTAS["content" if self.is_text else "reasoning"]

    @property
    def done_type(self) -> str:
        """The type of the event that has all of its text."""
        return _ENDS["content" if self.is_text else "reasoning"]

    @property
    def where(self) -> dict[str, Any]:
        """What its events say of their place."""
        return {"item_id": self._id, "output_index": self.number, "content_index": 0}

    def begun(self) -> dict[str, Any]:
        """The item before it has any text."""
        if self.is_text:
            return {"id": self._id, "type": "message", "role": "assistant", "status": "in_progress", "content": []}
        return {"id": self._id, "type": "reasoning", "status": "in_progress", "summary": [], "content": []}

    def whole(self) -> dict[str, Any]:
        """The item as it stands."""
        if not self.is_text:
            thought = {"type": "reasoning_text", "text": self.text}
            return {**self.begun(), "status": "completed", "content": [thought]}
        part: dict[str, Any] = {"type": "output_text", "text": self.text, "annotations": []}
        if self._logprobs:
            part["logprobs"] = [_logprob(each) for each in self._logprobs]
        return {**self.begun(), "status": "completed", "content": [part]}


def response_object(
    record: Record,
    status: str,
    output: Sequence[Mapping[str, Any]],
    *,
    usage: Usage | None = None,
    error: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A response as it stands."""
    echo = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], **record.echo}
    return {
        "instructions": None,
        "metadata": {},
        "temperature": None,
        "top_p": None,
        **echo,
        "id": record.id,
        "object": "response",
        "created_at": float(record.created),
        "model": record.model,
        "status": status,
        "background": record.background,
        "error": error,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "output": list(output),
        "previous_response_id": None,
        "truncation": "disabled",
        "usage": None if usage is None else _usage(usage),
    }


def _usage(usage: Usage) -> dict[str, Any]:
    details = usage.get("completion_tokens_details", {})
    return {
        "input_tokens": usage.get("prompt_tokens", 0),
        "input_tokens_details": {"cached_tokens": usage.get("cached_tokens", 0), "cache_write_tokens": 0},
        "output_tokens": usage.get("completion_tokens", 0),
        "output_tokens_details": {"reasoning_tokens": details.get("reasoning_tokens", 0)},
        "total_tokens": usage.get("total_tokens", 0),
    }


def _logprob(each: Mapping[str, Any]) -> dict[str, Any]:
    """A token's log-probability, with the bytes that this shape requires."""
    top = [{**other, "bytes": list(other["token"].encode())} for other in each["top_logprobs"]]
    return {**each, "bytes": list(each["token"].encode()), "top_logprobs": top}

"""The items of OpenAI's Responses, as the messages of a conversation."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from tasks.client.request.conversation import meaningful
from tasks.client.request.explain import shown_alone, shown_name
from tasks.client.request.suggestion import suggestion
from tasks.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of item: the fields that become a part of a message, and those that clients send and no model needs."""

    reads: tuple[str, ...]
    drops: tuple[str, ...] = ()


_KINDS: Mapping[str, _Kind] = MappingProxyType(
    {
        "message": _Kind(("role", "content"), ("phase",)),
        "function_call": _Kind(("call_id", "name", "arguments"), ("caller", "created_by", "namespace")),
        "function_call_output": _Kind(("call_id", "output"), ("caller", "created_by", "name", "namespace")),
        "reasoning": _Kind(("content",), ("encrypted_content", "summary")),
    }
)
_THOUGHT = _Kind(("type", "text"))
#: Fields of a message of ``/v1/chat/completions`` for which there are items.
_INSTEAD: Mapping[str, str] = MappingProxyType(
    {
        "tool_calls": "send each call as an item of the type function_call",
        "tool_call_id": "send the result as an item of the type function_call_output",
        "reasoning_content": "send the thought as an item of the type reasoning",
        "cache_control": "prompts are cached without it; leave it out",
    }
)


def messages_of(given: Any, instructions: Any) -> list[dict[str, Any]]:
    """Return the conversation in ``input``, with ``instructions`` before it. ``generate`` checks the messages.

    Raises:
        InvalidRequest: an item is none that a model here can be given, or the instructions are no text.
    """
    messages: list[dict[str, Any]] = []
    if instructions is not None:
        if not isinstance(instructions, str):
            raise InvalidRequest(f"instructions=<{type(instructions).__name__}>: use a text")
        messages.append({"role": "system", "content": instructions})
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    if not isinstance(given, list) or not given:
        raise InvalidRequest("input: use a text, or a list of items")
    for number, item in enumerate(given):
        _add(messages, item, f"input[{number}]")
    return messages


def _add(messages: list[dict[str, Any]], item: Any, where: str) -> None:
    if not isinstance(item, dict):
        raise InvalidRequest(f'{where}: use an item, as {{"role": "user", "content": …}}')
    kind = item.get("type") or "message"
    if not isinstance(kind, str) or kind not in _KINDS:
        raise InvalidRequest(f"{where}.type={kind!r:.60}: use {', '.join(_KINDS)}")
    _check(item, _KINDS[kind], where)
    if kind == "message":
        _continue(messages, {"role": item.get("role"), "content": item.get("content")})
    elif kind == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        _continue(messages, {"role": "assistant", "tool_calls": [{"id": item.get("call_id"), "function": function}]})
    elif kind == "function_call_output":
        messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": item.get("output")})
    elif thought := _thought(item.get("content"), f"{where}.content"):
        _continue(messages, {"role": "assistant", "reasoning_content": thought})


def _check(given: Mapping[str, Any], kind: _Kind, where: str) -> None:
    """Refuse a field that would be lost without a word."""
    for name, value in meaningful(given, ()).items():
        if name in kind.reads or name in kind.drops or name == "type":
            continue
        hint = _INSTEAD.get(name) or suggestion(name, kind.reads, "leave it out")
        raise InvalidRequest(f"{where}.{shown_name(name)}={shown_alone(name, value)}: unknown field; {hint}")


def _thought(content: Any, where: str) -> str:
    if content is None:
        return ""
    parts = content if isinstance(content, list) else [None]
    for place, part in enumerate(parts):
        if isinstance(part, dict):
            _check(part, _THOUGHT, f"{where}[{place}]")
    texts: list[Any] = [part.get("text", "") if isinstance(part, dict) else None for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise InvalidRequest(
            f'{where}={content!r:.60}: use a list of parts, as {{"type": "reasoning_text", "text": "…"}}'
        )
    return "".join(texts)


def _continue(messages: list[dict[str, Any]], message: dict[str, Any]) -> None:
    """Add a message; thoughts, text and calls of one turn of the assistant's are items there, and one message here."""
    last = messages[-1] if messages else {}
    if message["role"] == last.get("role") == "assistant" and not message.keys() & (
        last.keys() - {"role", "tool_calls"}
    ):
        calls = [*last.get("tool_calls", ()), *message.get("tool_calls", ())]
        last.update(message)
        if calls:
            last["tool_calls"] = calls
    else:
        messages.append(message)

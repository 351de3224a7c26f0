"""The items of OpenAI's Responses, as the messages of a conversation."""

from __future__ import annotations

from typing import Any

from tasks.errors import InvalidRequest


def messages_of(given: Any, instructions: Any) -> list[dict[str, Any]]:
    """The conversation in ``input``, with ``instructions`` before it. ``generate`` checks what the messages hold.

    Raises:
        InvalidRequest: an item is none that a model here can be given.
    """
    messages: list[dict[str, Any]] = []
    if instructions is not None:
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
    if kind == "message":
        _continue(messages, {"role": item.get("role"), "content": item.get("content")})
    elif kind == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        _continue(messages, {"role": "assistant", "tool_calls": [{"id": item.get("call_id"), "function": function}]})
    elif kind == "function_call_output":
        messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": item.get("output")})
    elif kind == "reasoning":
        if thought := _thought(item.get("content"), f"{where}.content"):
            _continue(messages, {"role": "assistant", "reasoning_content": thought})
    else:
        raise InvalidRequest(
            f"{where}.type={kind!r:.60}: use message, function_call, function_call_output or reasoning"
        )


def _thought(content: Any, where: str) -> str:
    if content is None:
        return ""
    parts = content if isinstance(content, list) else [None]
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

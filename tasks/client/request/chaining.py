"""A chain's previous answer, which Celery gives as the one positional argument, and where it goes in the next request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Where a chain's previous answer goes in ``prompt`` or in a message.
PREVIOUS = "{previous}"


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


def require_free(name: str, values: Mapping[str, Any]) -> None:
    """Refuse a value where the previous answer goes.

    Raises:
        InvalidRequest: the field is set.
    """
    if name in values:
        raise InvalidRequest(
            f"{name} is set, and a task before this one has an answer: leave {name} out, or use .si(…)"
        )


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
    text = text_of(previous)
    prompt, messages = values.get("prompt"), values.get("messages")
    if isinstance(prompt, str):
        return {**values, "prompt": prompt.replace(PREVIOUS, text) if PREVIOUS in prompt else prompt + text}
    if not isinstance(messages, list | None):
        return values  # which parse refuses
    told = [_replaced(message, text) for message in messages or []]
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


def text_of(previous: Any) -> str:
    """The text of an answer, or of several with blank lines between them.

    Raises:
        InvalidRequest: it is something else.
    """
    try:
        if isinstance(previous, str):
            return previous
        if isinstance(previous, list | tuple):
            return "\n\n".join(text_of(answer) for answer in previous)
        return str(previous["text"])
    except (TypeError, KeyError, RecursionError):
        if isinstance(previous, dict) and "role" in previous:
            raise InvalidRequest("the positional argument is a message: use messages=[…]") from None
        raise InvalidRequest(
            f"the positional argument is a {type(previous).__name__}: expected the previous task's answer (an object with "
            "'text'), a string, or a list of these; give everything else by keyword"
        ) from None

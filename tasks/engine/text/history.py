"""Calls of functions in a conversation, in the shape that a model's chat template wants.

Templates differ in two things. Most write a call's ``arguments`` with ``tojson``, and some put them into the text as they are,
so that they want JSON and fail for an object, or write Python's ``{'a': 1}``. And some have a form for ids: Mistral's refuse one
that has not nine letters or digits, and Kimi's have the function's name in it, which the model reads.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tasks.errors import InvalidRequest
from tasks.messages.encoding import to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Conversation = list[dict[str, Any]]

TOOL = "tool"
_MISTRAL_ID_CHARACTERS = 9


def render_calls(render: Callable[[Conversation], str], messages: Conversation, source: str = "") -> str:
    """The conversation as text, with its calls.

    Args:
        render: renders a conversation.
        messages: the conversation, with the arguments of calls as objects.
        source: the template's text.

    Raises:
        InvalidRequest: the template refuses the messages, or leaves calls or their results out.
    """
    told = _with_ids(messages, source)
    text = _with_calls(render, told)
    if _loses_results(render, told, text):
        raise InvalidRequest(
            "messages: the model's chat template leaves out messages of the role 'tool'; say it in a message of the user"
        )
    return text


def _with_calls(render: Callable[[Conversation], str], told: Conversation) -> str:
    """The conversation as text, with arguments as the template wants them."""
    calls = list(_functions(told))
    if not calls:
        return render(told)
    try:
        text = render(told)
        if not any(call["arguments"] and str(call["arguments"]) in text for call in calls):
            return _complete(calls, text)
    except Exception:
        with suppress(Exception):  # it fails for another reason, and the first error says which
            return _complete(calls, render(_as_json(told)))
        raise
    return _complete(calls, render(_as_json(told)))


def _loses_results(render: Callable[[Conversation], str], told: Conversation, text: str) -> bool:
    """Whether the template has passed over a result without a word: it may know no role ``tool``."""
    results = [message for message in told if message["role"] == TOOL]
    if all(str(message.get("content") or "").strip() in text for message in results):
        return False
    # It may have escaped or cut them: a word in the place of each tells.
    word = "resultofnobody"
    marked = [{**message, "content": word} if message["role"] == TOOL else message for message in told]
    try:
        return _with_calls(render, marked).casefold().count(word) < len(results)
    except Exception:  # noqa: BLE001 - templates fail in ways of their own; with the real results this one did not
        return False


def _functions(messages: Conversation) -> Iterator[dict[str, Any]]:
    for message in messages:
        for call in message.get("tool_calls") or ():
            yield call["function"]


def _complete(calls: list[dict[str, Any]], text: str) -> str:
    """The text, if it has all calls: many templates know none, and pass over them without a word."""
    if not all(call["name"] in text for call in calls):
        raise InvalidRequest(
            "messages: the model's chat template leaves out tool_calls; send what was called as content"
        )
    return text


def _changed(messages: Conversation, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Conversation:
    """The conversation with each call changed."""
    return [
        {**message, "tool_calls": [change(call) for call in message["tool_calls"]]}
        if message.get("tool_calls")
        else message
        for message in messages
    ]


def _as_json(messages: Conversation) -> Conversation:
    """The conversation with arguments as JSON text, as OpenAI has them."""

    def change(call: dict[str, Any]) -> dict[str, Any]:
        arguments = to_json(call["function"]["arguments"], ensure_ascii=False)
        return {**call, "function": {**call["function"], "arguments": arguments}}

    return _changed(messages, change)


def _with_ids(messages: Conversation, source: str) -> Conversation:
    """The conversation with ids that the template takes, the same in calls and results."""
    if "<|tool_calls_section_begin|>" in source:
        return _renamed(messages, lambda number, call: f"functions.{call['function']['name']}:{number}")
    if "[TOOL_CALLS]" in source and "length" in source:
        return _renamed(messages, lambda number, call: _short(str(call.get("id") or number)))
    return messages


def _renamed(messages: Conversation, rename: Callable[[int, dict[str, Any]], str]) -> Conversation:
    calls = [call for message in messages for call in message.get("tool_calls") or ()]
    names = {str(call.get("id") or number): rename(number, call) for number, call in enumerate(calls)}
    numbers = iter(range(len(calls)))

    def change(call: dict[str, Any]) -> dict[str, Any]:
        number = next(numbers)
        return {**call, "id": names[str(call.get("id") or number)]}

    return [
        {**message, "tool_call_id": names.get(message["tool_call_id"], message["tool_call_id"])}
        if "tool_call_id" in message
        else message
        for message in _changed(messages, change)
    ]


def _short(call_id: str) -> str:
    """An id of nine letters or digits for any id."""
    if len(call_id) == _MISTRAL_ID_CHARACTERS and call_id.isascii() and call_id.isalnum():
        return call_id
    return hashlib.blake2b(call_id.encode(), digest_size=8).hexdigest()[:_MISTRAL_ID_CHARACTERS]

"""Calls of functions in a conversation, in the shape that a model's chat template wants.

Templates differ in three things. Most write a call's ``arguments`` with ``tojson``, and some put them into the text as they are,
so that they want JSON and fail for an object, or write Python's ``{'a': 1}``. And some have a form for ids: Mistral's refuse one
that has not nine letters or digits, and Kimi's have the function's name in it, which the model reads. And some take only a part
of the messages that there are: they fail for an assistant that says nothing beside its calls (Qwen3's first one), write the first
call of a message alone (gpt-oss), or refuse a second one (Llama 3).
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Any

from tasks.errors import InvalidRequest
from tasks.messages.encoding import to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Conversation = list[dict[str, Any]]

TOOL = "tool"
_SILENT = {"role": "assistant", "content": ""}
_MISTRAL_ID_CHARACTERS = 9


class _CallsLeftOut(InvalidRequest):
    """The template has passed over a call: many know none."""

    def __init__(self) -> None:
        super().__init__("messages: the model's chat template leaves out tool_calls; send what was called as content")


def render_calls(render: Callable[[Conversation], str], messages: Conversation, source: str = "") -> str:
    """The conversation as text, with its calls.

    Args:
        render: renders a conversation.
        messages: the conversation, with the arguments of calls as objects.
        source: the template's text.

    Raises:
        InvalidRequest: the template refuses the messages, or leaves calls or their results out.
    """
    text = _with_calls(render, messages, source)
    if _loses_results(render, messages, source, text):
        raise InvalidRequest(
            "messages: the model's chat template leaves out messages of the role 'tool'; say it in a message of the user"
        )
    return text


def _with_calls(render: Callable[[Conversation], str], messages: Conversation, source: str) -> str:
    """The conversation as text: as it is, else in another shape that says the same."""
    if not any(_functions(messages)):
        return render(messages)
    filled = [{**message, "content": message.get("content") or ""} for message in messages]
    if filled != messages:
        with suppress(Exception):
            return _checked(render, messages, source)
    try:
        return _checked(render, filled, source)
    except Exception:
        with suppress(Exception):  # it fails for another reason, and the first error says which
            return _checked(render, _one_by_one(filled), source)
        raise


def _checked(render: Callable[[Conversation], str], messages: Conversation, source: str) -> str:
    """The conversation as text, which has each of its calls."""
    text = _with_arguments(render, _with_ids(messages, source))
    # The name of a function may be in the text for its description, so each call is given a word for a name.
    numbers = count()
    named = _changed(messages, lambda call: _with(call, name=f"call{next(numbers)}ofnobody"))
    try:
        _with_arguments(render, _with_ids(named, source))
    except _CallsLeftOut:
        raise
    except Exception:  # noqa: BLE001, S110 - templates fail in ways of their own; with the real names this one did not
        pass
    return text


def _with_arguments(render: Callable[[Conversation], str], told: Conversation) -> str:
    """The conversation as text, with arguments as the template wants them."""
    calls = list(_functions(told))
    try:
        text = render(told)
        if not any(call["arguments"] and str(call["arguments"]) in text for call in calls):
            return _complete(calls, text)
    except Exception:
        with suppress(Exception):  # it fails for another reason, and the first error says which
            return _complete(calls, render(_as_json(told)))
        raise
    return _complete(calls, render(_as_json(told)))


def _loses_results(render: Callable[[Conversation], str], messages: Conversation, source: str, text: str) -> bool:
    """Whether the template has passed over a result without a word: it may know no role ``tool``."""
    results = [message for message in messages if message["role"] == TOOL]
    if all(str(message.get("content") or "").strip() in text for message in results):
        return False
    # It may have escaped or cut them: a word in the place of each tells.
    word = "resultofnobody"
    marked = [{**message, "content": word} if message["role"] == TOOL else message for message in messages]
    try:
        return _with_calls(render, marked, source).casefold().count(word) < len(results)
    except Exception:  # noqa: BLE001 - templates fail in ways of their own; with the real results this one did not
        return False


def _functions(messages: Conversation) -> Iterator[dict[str, Any]]:
    for message in messages:
        for call in message.get("tool_calls") or ():
            yield call["function"]


def _complete(calls: list[dict[str, Any]], text: str) -> str:
    """The text, if it has all calls."""
    if not all(call["name"] in text for call in calls):
        raise _CallsLeftOut
    return text


def _with(call: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The call with these fields of its function."""
    return {**call, "function": {**call["function"], **fields}}


def _one_by_one(messages: Conversation) -> Conversation:
    """The conversation with each call in a message of its own, and its result behind it."""
    told: Conversation = []
    rest = list(messages)
    while rest:
        message = rest.pop(0)
        calls = message.get("tool_calls") or ()
        results = {result.get("tool_call_id"): result for result in rest[: len(calls)] if result["role"] == TOOL}
        if len(results) <= 1 or {call.get("id") for call in calls} != results.keys() or len(results) < len(calls):
            told.append(message)
            continue
        del rest[: len(calls)]
        for number, call in enumerate(calls):
            told.append({**(_SILENT if number else message), "tool_calls": [call]})
            told.append(results[call.get("id")])
    return told


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

    return _changed(
        messages, lambda call: _with(call, arguments=to_json(call["function"]["arguments"], ensure_ascii=False))
    )


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

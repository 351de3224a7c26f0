"""Explains a wrong request in one line that names the field, its value and the remedy."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from tasks.client.request import compatibility, conversation
from tasks.client.request.options import OPTIONS
from tasks.client.request.suggestion import suggestion
from tasks.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

Model = TypeVar("Model", bound=BaseModel)

#: Fields with people's words in them.
_PRIVATE = ("messages", "prompt", "input", "query", "documents", "tools")
#: What to do about a part of a message, by the name of the part.
_MESSAGE_HINTS = {
    "role": "use system, developer, user, assistant or tool",
    "content": 'send text, or a list of {"type": "text", "text": …}',
    "text": "send text",
    "tool_calls": 'send a list of {"id": …, "type": "function", "function": {"name": …, "arguments": …}}',
    "function": 'send {"name": …, "arguments": …}',
    "arguments": "send a JSON object, as text or as a dictionary",
    "tool_call_id": "send the id of the call, as text; several results are several messages",
    "id": "send the call's id, as text",
    "name": "send a name, as text",
    "reasoning_content": "send text",
}
#: What to do about a part of a message's content, by the part's type.
_PART_HINTS = {
    **dict.fromkeys(("image", "image_url", "input_image"), "images are not supported"),
    **dict.fromkeys(("audio", "input_audio"), "sound is not supported"),
    **dict.fromkeys(("video", "video_url"), "videos are not supported"),
    **dict.fromkeys(("document", "file", "input_file"), "files are not supported"),
    "refusal": "a refusal is text",
    **dict.fromkeys(("reasoning", "thinking"), "a thought is reasoning_content of the message"),
    **dict.fromkeys(("function_call", "tool-call", "tool_call", "tool_use"), "calls are tool_calls of the message"),
    **dict.fromkeys(
        ("function_call_output", "tool-result", "tool_result"),
        "a result is a message of the role tool, with tool_call_id",
    ),
}


def unknown(
    name: str,
    value: Any,
    fields: Mapping[str, FieldInfo],
    task: str = "generate",
    instead: Mapping[str, str] = compatibility.INSTEAD,
) -> str:
    """The error for a field that this task does not have."""
    given = f"{shown_name(name)}={shown_alone(name, value)}"
    if name in instead:
        return f"{given}: not a field of {task}: {instead[name]}"
    if name in OPTIONS:
        return f"{given}: an option and not a field of {task}: use {task}.apply_async(kwargs={{…}}, {name}=…)"
    snake_case = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()  # JavaScript's topP
    hint = suggestion(snake_case, fields, f"leave it out; the fields are {', '.join(fields)}")
    return f"{given}: unknown field; {hint}"


def refuse_unknown(
    values: Mapping[str, Any],
    fields: Mapping[str, FieldInfo],
    task: str = "generate",
    instead: Mapping[str, str] = compatibility.INSTEAD,
) -> None:
    """Check that a task has all of these fields.

    Raises:
        InvalidRequest: names the first that it does not have, and what to do.
    """
    for name, value in values.items():
        if name not in fields:
            raise InvalidRequest(unknown(name, value, fields, task, instead))


def validated(model: type[Model], values: Mapping[str, Any]) -> Model:
    """The values as a task's parameters.

    Raises:
        InvalidRequest: the message names the first wrong field, its value and the remedy.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InvalidRequest(explain(error, model.model_fields)) from None


def shown_name(name: str) -> str:
    """The name of a field, which is anything that a client sent, for a line of a log."""
    return name if name.isidentifier() and len(name) <= 60 else short(name)


def explain(error: ValidationError, fields: Mapping[str, FieldInfo]) -> str:
    """The first of pydantic's errors. What a field's description says is what to do about it."""
    first: ErrorDetails = error.errors(include_url=False, include_context=False)[0]
    if not first["loc"]:
        return first["msg"]
    name = str(first["loc"][0])
    steps = [step for step in first["loc"][1:] if step not in (conversation.TEXT, conversation.PARTS, "[key]")]
    where = name + "".join(f"[{step!r}]" for step in steps)
    message = first["msg"][0].lower() + first["msg"][1:]
    if first["type"] in ("missing", "conversation"):  # the input is the whole object around it
        line = f"{where}: {message}"
    elif first["type"] == "extra_forbidden":
        line = f"{where}={_shown(first)}: unknown field"
    else:
        line = f"{where}={_shown(first)}: {message}"
    if "; " in message:  # it says what to do
        return line
    return f"{line}; {_message_hint(steps, first) if name == 'messages' and steps else fields[name].description}"


def short(value: Any) -> str:
    """A value, as far as a line has room for it."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deeply, or an integer of thousands of digits
        return f"<{type(value).__name__}>"
    return text if len(text) <= 60 else f"{text[:57]}…"


def shown_alone(name: str, value: Any) -> str:
    """The value of a field that nobody knows: text may be somebody's words, or a key, unless the field has names as values."""
    has_names = any(isinstance(neutral, str) and neutral for neutral in compatibility.NEUTRAL.get(name, ()))
    if isinstance(value, list | dict) or (isinstance(value, str) and not has_names):
        return f"<{type(value).__name__}>"
    return short(value)


def _message_hint(steps: list[Any], error: ErrorDetails) -> str:
    last = str(steps[-1])
    if error["type"] == "extra_forbidden":
        return conversation.INSTEAD.get(last, "leave it out")
    if last == "role" and error["input"] == "function":
        return "use the role tool, with tool_call_id"
    if last == "type" and "tool_calls" in steps and error["input"] == "tool_call":
        return f"a call of LangChain; {_MESSAGE_HINTS['tool_calls']}"
    if last == "type" and "tool_calls" in steps:
        return "only functions are supported; leave it out"
    if last == "type":
        found = _PART_HINTS.get(error["input"], "") if isinstance(error["input"], str) else ""
        return f"{found}; {_MESSAGE_HINTS['content']}" if found else _MESSAGE_HINTS["content"]
    if isinstance(steps[-1], int):
        last = "content" if "content" in steps else "tool_calls" if "tool_calls" in steps else ""
    return _MESSAGE_HINTS.get(last, 'send {"role": "user", "content": …}')


def _shown(error: ErrorDetails) -> str:
    """The wrong value, unless it may be somebody's words: errors are seen in logs and monitors."""
    is_prompt = error["loc"][0] in _PRIVATE and error["loc"][-1] not in ("role", "type", "name")
    if is_prompt and isinstance(error["input"], str | list | dict):
        return f"<{type(error['input']).__name__}>"
    return short(error["input"])

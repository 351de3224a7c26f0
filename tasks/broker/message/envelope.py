"""A task's message, checked before anything looks at its content: Celery's protocol 2, with the types that Celery takes for
granted. docs/wire-format.md describes it."""

from __future__ import annotations

from datetime import datetime
from math import isfinite
from typing import Any

from tasks.errors import InvalidRequest
from tasks.messages.depth import MAX_MESSAGE_DEPTH, exceeds
from tasks.messages.identifier import IDENTIFIER, is_identifier

#: What tells one message from another is a field of a hash.
MAX_TAG_CHARACTERS = 256
#: An hour-long generation is a long one; timers and dates break far beyond this.
MAX_LIMIT_S = 10 * 365 * 86_400
_TIMES = ("eta", "expires")
_NAMES = ("root_id", "parent_id", "group", "shadow", "argsrepr", "kwargsrepr")
_COUNTS = ("retries", "group_index", "replaced_task_nesting")
_FOLLOWERS = ("callbacks", "errbacks", "chain")


def task_id_of(message: Any) -> str | None:
    """The id in a message of any shape, if it has one that an answer can be given to."""
    headers = message.get("headers") if isinstance(message, dict) else None
    task_id = headers.get("id") if isinstance(headers, dict) else None
    return task_id if is_identifier(task_id) else None


def check_frame(message: Any) -> None:
    """Check the types that kombu takes for granted, of a message for any task.

    Raises:
        InvalidRequest: names the first wrong field.
    """
    if not isinstance(message, dict):
        raise InvalidRequest(f"message: expected an object, found {_kind(message)}")
    _check_depth("message", message)
    properties = message.get("properties")
    if not isinstance(properties, dict):
        raise InvalidRequest(f"properties: expected an object, found {_kind(properties)}")
    tag, info = properties.get("delivery_tag"), properties.get("delivery_info")
    if not _is_tag(tag):
        raise InvalidRequest(f"properties.delivery_tag is {tag!r:.60}: expected a string of its own for each message")
    if not isinstance(info, dict):
        raise InvalidRequest(f"properties.delivery_info: expected an object, found {_kind(info)}")
    for name in ("exchange", "routing_key"):
        if not isinstance(info.get(name), str):
            raise InvalidRequest(f"properties.delivery_info.{name} is {info.get(name)!r:.60}: expected a string")
    priority = properties.get("priority")
    if priority is not None and (isinstance(priority, bool) or not isinstance(priority, int)):
        raise InvalidRequest(f"properties.priority is {priority!r:.60}: expected a whole number")


def check(headers: Any, payload: Any) -> None:
    """Check the headers and the decoded body of a request.

    Raises:
        InvalidRequest: names the first wrong field; never a word of the prompt.
    """
    if not isinstance(headers, dict):
        raise InvalidRequest(f"headers: expected an object, found {_kind(headers)}")
    if not is_identifier(headers.get("id")):
        raise InvalidRequest(f"headers.id is {headers.get('id')!r:.60}: expected {IDENTIFIER}")
    _check_headers(headers)
    if not isinstance(payload, list) or len(payload) != 3:
        raise InvalidRequest(f"body: expected a list of arguments, keywords and options, found {_kind(payload)}")
    _check_depth("body", payload)
    args, kwargs, options = payload
    if not isinstance(args, list):
        raise InvalidRequest(f"body[0], the arguments: expected a list, found {_kind(args)}")
    if len(args) > 1:
        raise InvalidRequest(
            f"body[0] has {len(args)} positional arguments: at most one is taken, the previous task's answer; give everything "
            "else by keyword"
        )
    if not isinstance(kwargs, dict):
        raise InvalidRequest(f"body[1], the keywords: expected an object, found {_kind(kwargs)}")
    if options is not None:
        _check_options(options)


def _check_depth(name: str, value: Any) -> None:
    if exceeds(value, MAX_MESSAGE_DEPTH):
        raise InvalidRequest(f"{name}: nested more than {MAX_MESSAGE_DEPTH} levels deep: send a flatter one")


def _is_tag(value: Any) -> bool:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TAG_CHARACTERS:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # one half of a character
        return False
    return True


def _check_headers(headers: dict[str, Any]) -> None:
    for name in _TIMES:
        _check_time(name, headers.get(name))
    for name in _NAMES:
        value = headers.get(name)
        if value is not None and not isinstance(value, str):
            raise InvalidRequest(f"headers.{name} is {value!r:.60}: expected a string")
    for name in _COUNTS:
        value = headers.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise InvalidRequest(f"headers.{name} is {value!r:.60}: expected a whole number")
    if not isinstance(headers.get("ignore_result"), bool | None):
        raise InvalidRequest(f"headers.ignore_result is {headers['ignore_result']!r:.60}: expected true or false")
    limits = headers.get("timelimit")
    if limits is not None and not (
        isinstance(limits, list) and len(limits) == 2 and all(limit is None or _is_limit(limit) for limit in limits)
    ):
        raise InvalidRequest(f"headers.timelimit is {limits!r:.60}: expected two numbers of seconds, or null")
    stamps, names = headers.get("stamps"), headers.get("stamped_headers")
    if stamps is not None and not isinstance(stamps, dict):
        raise InvalidRequest(f"headers.stamps: expected an object, found {_kind(stamps)}")
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise InvalidRequest(f"headers.stamped_headers: expected a list of strings, found {_kind(names)}")


def _check_time(name: str, value: Any) -> None:
    if value is None:
        return
    try:
        year = datetime.fromisoformat(value).year
    except (TypeError, ValueError):
        year = 0
    # A time zone moves a date of the first or last year out of what Python can name.
    if not 1970 <= year < 9999:
        raise InvalidRequest(f"headers.{name} is {value!r:.60}: expected a time as 2026-01-31T12:00:00+00:00")


def _is_limit(value: Any) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and 0 <= value <= MAX_LIMIT_S
    )


def _check_options(options: Any) -> None:
    """The third part of the body: which tasks follow."""
    if not isinstance(options, dict):
        raise InvalidRequest(f"body[2], the options: expected an object, found {_kind(options)}")
    for name in _FOLLOWERS:
        followers = options.get(name)
        if followers is None:
            continue
        if not isinstance(followers, list):
            raise InvalidRequest(f"body[2].{name}: expected a list of signatures, found {_kind(followers)}")
        for follower in followers:
            _check_signature(name, follower)
    if options.get("chord") is not None:
        _check_signature("chord", options["chord"])


def _check_signature(name: str, value: Any) -> None:
    types = {"task": str, "args": list, "kwargs": dict, "options": dict, "subtask_type": str, "immutable": bool}
    if not isinstance(value, dict) or not isinstance(value.get("task"), str):
        raise InvalidRequest(f"body[2].{name}: expected a signature, an object with 'task', found {_kind(value)}")
    for field, kind in types.items():
        found = value.get(field)
        if found is not None and not isinstance(found, kind):
            raise InvalidRequest(f"body[2].{name}.{field}: expected {kind.__name__}, found {_kind(found)}")


def _kind(value: Any) -> str:
    return type(value).__name__ if not isinstance(value, list) else f"a list of {len(value)}"

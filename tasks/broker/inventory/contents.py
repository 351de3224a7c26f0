"""The contents of a message, as far as tools that look at queues need them."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

from tasks.broker.message.message import unpacked
from tasks.errors import InvalidRequest
from tasks.registry.values import json_object, text


@dataclass(slots=True, frozen=True)
class Contents:
    """``model`` is ``None`` where the request names none, ``queue`` where it was sent to; ``task`` is the task's name."""

    task_id: str
    task: str
    model: str | None
    queue: str


def contents_of(message: dict[str, Any]) -> Contents:
    """Return the contents of this message; empty texts stand for what cannot be read."""
    headers, properties = _object(message.get("headers")), _object(message.get("properties"))
    _, values, _ = body_of(message)
    model = values.get("model")
    return Contents(
        task_id=text(headers.get("id", "")),
        task=text(headers.get("task", "")),
        model=model if isinstance(model, str) else None,
        queue=text(_object(properties.get("delivery_info")).get("routing_key", "")),
    )


def body_of(message: dict[str, Any]) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    """The three parts of a message's body: arguments, keywords, and what follows the task; empty where they cannot be read."""
    headers, properties = _object(message.get("headers")), _object(message.get("properties"))
    body = str(message.get("body"))
    try:
        packed = base64.b64decode(body) if properties.get("body_encoding") == "base64" else body.encode()
        compression = headers.get("compression")
        args, kwargs, followers = json.loads(unpacked(packed, compression) if compression else packed)
    except (ValueError, TypeError, RecursionError, InvalidRequest):
        return [], {}, {}
    return (args if isinstance(args, list) else []), _object(kwargs), _object(followers)


def held_message(payload: Any) -> dict[str, Any]:
    """The message in a field of what a worker holds, where kombu notes its exchange and key beside it."""
    try:
        return _object(json.loads(payload)[0])
    except (ValueError, TypeError, KeyError, IndexError, RecursionError):
        return {}


def ledger_message(entry: Any) -> dict[str, Any]:
    """The message in an entry of the ledger."""
    return json_object(json_object(entry).get("message"))


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}

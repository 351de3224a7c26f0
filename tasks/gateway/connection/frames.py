"""Server-sent events as OpenAI's SDKs, the AI SDK and browsers read them.

A comment ends with one line break: with the usual two, beside events that have an ``id``, openai-python takes it for an event
without data, and fails. JSON may have characters at which ``str.splitlines`` ends a line, and httpx with it: many
Python clients would see two lines, neither of which is JSON. So they are escaped.
"""

from __future__ import annotations

from tasks.messages.encoding import to_compact_json

DONE = b"data: [DONE]\n\n"
MEDIA_TYPE = "text/event-stream"
#: Characters that JSON leaves as they are, and that end a line for some clients.
_LINE_ENDS = {ord(character): f"\\u{ord(character):04x}" for character in "\x85\u2028\u2029"}


def event(data: object, event_id: str = "", name: str = "") -> bytes:
    """One event; ``name`` is its type."""
    return framed(to_compact_json(data), event_id, name)


def framed(data: str, event_id: str = "", name: str = "") -> bytes:
    """The same of data that is JSON already."""
    if not data.isascii():
        data = data.translate(_LINE_ENDS)
    head = (f"event: {name}\n" if name else "") + (f"id: {event_id}\n" if event_id else "")
    return f"{head}data: {data}\n\n".encode()


def comment(text: str) -> bytes:
    """Return an event that every client skips: it keeps the connection alive, and tells a person who looks."""
    return f": {text}\n".encode()

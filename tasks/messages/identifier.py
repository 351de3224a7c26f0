"""The characters of a task id, which becomes a part of Redis keys and channels, of log lines and of commands."""

from __future__ import annotations

from typing import Any

#: Longer than any id that Celery makes (36 characters).
MAX_ID_CHARACTERS = 256
#: The rule, for messages.
IDENTIFIER = f"text of 1 to {MAX_ID_CHARACTERS} printable characters"


def is_identifier(value: Any) -> bool:
    """Whether the whole fleet can do with it. A line break would forge lines of a log; half a character cannot be a key."""
    return isinstance(value, str) and 0 < len(value) <= MAX_ID_CHARACTERS and value.isprintable()

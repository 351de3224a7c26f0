"""Bounds the nesting of values to less than Python, its JSON and pydantic can follow, each to a depth of its own."""

from __future__ import annotations

from typing import Any

#: Lists and dictionaries inside one another, in one parameter.
MAX_DEPTH = 64
#: The same in a whole message: a chain's later links are inside the first one's, each with parameters of its own.
MAX_MESSAGE_DEPTH = 192


#: A union would be made at each look, of which a message has many.
_NESTING = (dict, list)


def exceeds(value: Any, most: int) -> bool:
    """Whether lists and dictionaries are nested more than ``most`` deep. Does not recurse."""
    level = [value] if isinstance(value, _NESTING) else []
    for _ in range(most):
        if not level:
            return False
        level = [
            child
            for holder in level
            for child in (holder.values() if isinstance(holder, dict) else holder)
            if isinstance(child, _NESTING)
        ]
    return bool(level)

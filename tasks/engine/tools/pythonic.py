"""Calls in the syntax of Python: ``[name(argument="value"), …]``."""

from __future__ import annotations

import re

from mlx_lm.tool_parsers import pythonic

from tasks.engine.tools.region import BrokenCall, Call
from tasks.messages.encoding import to_json

_TEXTS = re.compile(r""""(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'""", re.DOTALL)
#: Tokens are lone surrogates here, which Python's parser does not take.
_HIDDEN = {code: code + 0x100000 for code in range(0xDC00, 0xE000)}
_SHOWN = {hidden: code for code, hidden in _HIDDEN.items()}
#: Python's parser takes a time and a depth that grow with its text.
MOST_CHARACTERS = 1 << 16


def read(text: str) -> list[Call] | None:
    """The calls of a region, by mlx-lm's parser; ``None`` where it ends in a text.

    Raises:
        BrokenCall: it is no call.
    """
    code = _TEXTS.sub("", text)
    if re.search("[\"']", code):
        return None
    if not code.rstrip().endswith("]"):  # which mlx-lm's parser finds in a text, too
        raise BrokenCall("its calls do not end where it does")
    if len(text) > MOST_CHARACTERS:
        raise BrokenCall(f"it has more than {MOST_CHARACTERS} characters")
    try:
        found = pythonic.parse_tool_call(text.translate(_HIDDEN))
        calls = found if isinstance(found, list) else [found]
        return [
            Call(str(call["name"]), to_json(call["arguments"], ensure_ascii=False).translate(_SHOWN)) for call in calls
        ]
    except (ValueError, TypeError, KeyError, RecursionError, MemoryError):
        raise BrokenCall("no call stands between its markers") from None

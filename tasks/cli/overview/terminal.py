"""The width of the terminal, and the characters that standard output can show."""

from __future__ import annotations

import os
import sys


def terminal_width() -> int | None:
    """The columns of the terminal; ``None`` where standard output is none, and nothing has to be cut."""
    return os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout.isatty() else None


def printable(text: str) -> str:
    """Return the text with a question mark for each letter that standard output cannot encode."""
    encoding = sys.stdout.encoding or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)

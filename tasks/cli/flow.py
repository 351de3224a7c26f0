"""Text that comes in pieces, on a terminal: a word that does not fit into the rest of a line begins the next one."""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PARTS = re.compile(r"\n|[^\S\n]+|\S+")


class Flow:
    """Breaks lines of at most ``width`` columns between words; ``None`` breaks none.

    The last word is kept back until white space comes or :meth:`end` is called. What is longer than a line is left to the
    terminal, and a line that begins with white space is left as it is: it may be code.
    """

    def __init__(self, width: int | None) -> None:
        self._width = width
        self._word = ""
        self._column = 0
        self._indented = False

    def add(self, text: str) -> str:
        """Take further text, and return what to print now."""
        if self._width is None:
            return text
        parts = _PARTS.findall(self._word + text)
        self._word = parts.pop() if parts and not parts[-1].isspace() else ""
        return "".join(self._place(parts))

    def end(self) -> str:
        """The word that was kept back."""
        word, self._word = self._word, ""
        return "".join(self._place([word])) if word else ""

    def _place(self, parts: list[str]) -> Iterator[str]:
        assert self._width is not None
        for part in parts:
            if part == "\n":
                self._column, self._indented = 0, False
                yield part
                continue
            columns = _columns(part)
            if part.isspace():
                self._indented = self._indented or self._column == 0
            elif not self._indented and 0 < self._column <= self._width < self._column + columns:
                self._column = 0
                yield "\n"
            self._column += columns
            yield part


def _columns(word: str) -> int:
    """Return the width of a text in a terminal. ``rich`` knows more kinds of letters, and a producer need not have it."""
    return sum(
        0 if unicodedata.combining(letter) else 1 + (unicodedata.east_asian_width(letter) in "WF") for letter in word
    )

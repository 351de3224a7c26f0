"""Finds the end of one JSON value in a growing text, without reading it again for each part that comes."""

from __future__ import annotations

import re

_SPACE = re.compile(r"\s*")
_OUTSIDE = re.compile(r'["{}\[\]]')
_INSIDE = re.compile(r'["\\]')
#: The characters that end a number or a word.
_DELIMITER = re.compile(r"[^\w.+-]")


class JsonSpan:
    """The value that comes next from a place on. It does not say whether the value is valid JSON.

    Attributes:
        start: where the value begins.
        at: how far it has been read.
    """

    __slots__ = ("_begun", "_deep", "_quoted", "at", "start")

    def __init__(self, start: int) -> None:
        self.start = self.at = start
        self._begun = False
        self._deep = 0
        self._quoted = False

    def read(self, text: str) -> bool:
        """Go on in the text, which begins as it did before; whether the value ends, at :attr:`at`."""
        if not self._begun:
            match = _SPACE.match(text, self.at)
            self.start = self.at = match.end() if match else self.at
            self._begun = self.at < len(text)
        if not self._begun:
            return False
        if text[self.start] not in '{["':
            delimiter = _DELIMITER.search(text, self.at)
            self.at = delimiter.start() if delimiter else len(text)
            return delimiter is not None
        return self._read_nested(text)

    def _read_nested(self, text: str) -> bool:
        while (match := (_INSIDE if self._quoted else _OUTSIDE).search(text, self.at)) is not None:
            if match[0] == "\\":
                if match.end() == len(text):  # what is escaped has not come
                    self.at = match.start()
                    return False
                self.at = match.end() + 1
                continue
            self.at = match.end()
            if match[0] == '"':
                self._quoted = not self._quoted
            else:
                self._deep += 1 if match[0] in "{[" else -1
            if not self._deep and not self._quoted:
                return True
        self.at = len(text)
        return False

"""Text that grows by a few characters at a time, kept in little memory."""

from __future__ import annotations

#: This many parts become one: a part of its own takes 50 bytes more than its characters.
_PARTS = 64


class TextBuffer:
    """The text so far: ``str(buffer)``."""

    __slots__ = ("_blocks", "_parts")

    def __init__(self) -> None:
        self._blocks: list[str] = []
        self._parts: list[str] = []

    def add(self, text: str) -> None:
        """Append."""
        self._parts.append(text)
        if len(self._parts) >= _PARTS:
            self._blocks.append("".join(self._parts))
            self._parts.clear()

    def __str__(self) -> str:
        return "".join([*self._blocks, *self._parts])

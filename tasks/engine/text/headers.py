"""Messages with headers, as in Harmony (gpt-oss): ``<|start|>assistant<|channel|>analysis<|message|>…<|end|>``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from tasks.engine.text.piece import Piece, joined

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tasks.messages.answer import Kind

#: A header that is longer is none: the model says something else, which must not be held back for ever.
MOST_CHARACTERS = 256
_SELF = re.compile(r"\bto=self\b")
_FUNCTION = re.compile(r"\bto=functions\.([\w.-]+)")
#: The characters around a call as it is handed on: ``BEGIN``, its name, ``MESSAGE``, its arguments, ``END``.
BEGIN, MESSAGE, END = "<|call_begin|>", "<|message|>", "<|call|>"


@dataclass(frozen=True)
class HeaderMarks:
    """One character for each token that structures messages.

    ``start`` begins a header and ``message`` ends it; one of ``ends`` ends what the message says. ``channel`` is in front
    of a channel's name where the family has channels, and ``others`` may be part of a header too.
    """

    start: str
    message: str
    ends: str
    channel: str = ""
    others: str = ""

    @cached_property
    def split(self) -> Callable[[str], list[str]]:
        """Cut text at each mark; what is at odd places is a mark."""
        return re.compile(f"([{self.start}{self.message}{self.ends}{self.channel}{self.others}])").split

    @cached_property
    def plausible(self) -> Callable[[str], re.Match[str] | None]:
        """Whether this can be what stands in front of a channel's name: a role behind ``start``, then a recipient."""
        return re.compile(rf"(?:{self.start}\s*\w*)?\s*(?:t|to|to=\S*)?\s*").fullmatch

    @cached_property
    def role(self) -> Callable[[str, str], str]:
        """Replace the beginning of a header."""
        return re.compile(rf"^{self.start}\s*(?:assistant)?").sub

    def kind_of(self, header: str) -> Kind:
        """Return the kind of a message with this header.

        Of channels, ``final`` alone is for the user, and so is a message that names none. Without channels, what a model
        says to itself is what it thinks.
        """
        if not self.channel:
            return "reasoning" if _SELF.search(header) else "content"
        _, named, channel = header.partition(self.channel)
        return "content" if not named or channel.strip().startswith("final") else "reasoning"


class Headers:
    """The messages of one answer.

    Args:
        marks: the model's.
        tail: how the prompt ends: in a header, as a rule.
        stop: marks at which the request ends.
        calls: characters that mark calls, by their names. Where there are some, a message to a function is one.
    """

    __slots__ = ("_call_end", "_calls", "_due", "_header", "_marks", "_prompted", "_stop", "kind", "stopped")

    def __init__(
        self, marks: HeaderMarks, tail: str, stop: frozenset[str], calls: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self._marks = marks
        self._calls = calls if BEGIN in calls else {}
        #: Markers of calls that are due now, and at the end of this message.
        self._due = self._call_end = ""
        self._stop: frozenset[str] = frozenset()
        #: The header so far; ``None`` in a message. So many of its characters are the prompt's.
        self._header: str | None = None
        self._prompted = 0
        self.kind: Kind = "content"
        self.stopped = False
        if marks.start in tail:
            self._begin(tail[tail.rfind(marks.start) :])
        self._stop = stop

    def push(self, text: str) -> list[Piece]:
        """See :meth:`tasks.engine.text.channels.Channels.push`."""
        pieces: list[Piece] = []
        if self.stopped:
            return pieces
        for place, part in enumerate(self._marks.split(text)):
            if place % 2:
                if self._ends_at(part):
                    break
                pieces.append(Piece("content", self._due))
                self._due = ""
            elif self._header is None:
                pieces.append(Piece(self.kind, part))
            elif part:
                self._header += part
                pieces.append(Piece("content", self._released()))
        return joined(pieces)

    def finish(self) -> list[Piece]:
        """See :meth:`tasks.engine.text.channels.Channels.finish`: half a header is no text."""
        return []

    def _begin(self, prompt: str) -> None:
        """Take what the prompt says of the first message."""
        self.push(prompt)
        if self._header:
            # The role is complete: a word that follows is not a part of it.
            self._header += "" if self._marks.channel and self._marks.channel in self._header else " "
            self._prompted = len(self._header)

    def _ends_at(self, mark: str) -> bool:
        """Go on behind a mark, unless the request ends there."""
        marks = self._marks
        self.stopped = mark in self._stop
        if mark == marks.start or mark in marks.ends:
            self._header, self._prompted = mark if mark == marks.start else "", 0
            self._due, self._call_end = self._call_end, ""
        elif mark == marks.channel:
            self._header = (self._header or "") + mark
        elif mark == marks.message and self._header is not None:
            function = _FUNCTION.search(self._header) if self._calls else None
            self.kind, self._header = "content" if function else marks.kind_of(self._header), None
            if function is not None:
                self._due = f"{self._calls[BEGIN]}{function[1]}{self._calls[MESSAGE]}"
                self._call_end = self._calls[END]
        return self.stopped

    def _released(self) -> str:
        """Release what was taken for a header and cannot be one: text for the user. Empty while it still can."""
        header, channel = self._header or "", self._marks.channel
        named = bool(channel) and channel in header
        if len(header) <= MOST_CHARACTERS if named else self._marks.plausible(header):
            return ""
        self.kind, self._header = "content", None
        text = header[self._prompted :]
        return self._marks.role("", text).replace(channel or "\0", "")

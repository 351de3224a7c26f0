"""Thoughts between an opening and a closing marker, as in ``<think>…</think>``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

from tasks.engine.text.piece import Piece, joined

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.messages.answer import Kind


#: How markers of plain text begin that end an answer.
_ENDING = ("</", "[END ", "<|end_of")


@dataclass(frozen=True)
class Delimiters:
    """The markers of a family of models; no one of them begins with another.

    Those of ``tokens`` consist of characters that stand for tokens, and count wherever they are: an opening one begins a
    thought, also a second one and one in mid-answer; what has nothing to open or close is dropped. Others are plain text:
    ``opens`` counts at the beginning of an answer alone, and right behind a thought, because the same characters are
    text elsewhere. ``silent`` ones structure the answer and say nothing; those of plain text that end something count anywhere
    in the answer, and others where ``opens`` does.
    """

    opens: tuple[str, ...]
    closes: tuple[str, ...]
    silent: tuple[str, ...] = ()
    tokens: str = ""

    @cached_property
    def in_thought(self) -> _Table:
        """The markers to look for while the model thinks."""
        return _Table(self.closes + (self.silent + self.opens if self.tokens else ()))

    @cached_property
    def in_answer(self) -> _Table:
        """The markers to look for in the answer."""
        if self.tokens:
            return _Table(self.opens + self.silent + self.closes)
        return _Table(tuple(marker for marker in self.silent if marker.startswith(_ENDING)))

    @cached_property
    def at_start(self) -> _Table:
        """The markers to look for before the first word of an answer."""
        return _Table(self.opens + self.silent) if not self.tokens else self.in_answer

    @cached_property
    def strays(self) -> dict[int, None]:
        """A translation that leaves out tokens of a marker that are no whole one."""
        return dict.fromkeys(map(ord, self.tokens))

    def opened(self, tail: str) -> bool:
        """Whether the prompt, which ends like this, has begun the thought."""
        if not self.tokens:
            return tail.rstrip().endswith(self.opens)
        return max(map(tail.rfind, self.opens)) > max(map(tail.rfind, self.closes))


class _Table:
    """Markers to look for at the same time."""

    def __init__(self, markers: tuple[str, ...]) -> None:
        self.search = re.compile("|".join(map(re.escape, markers)) or "(?!)").search
        self._starts = frozenset(marker[:length] for marker in markers for length in range(1, len(marker)))
        self._longest = max(map(len, markers), default=1) - 1

    def pending_characters(self, text: str) -> int:
        """Return how many characters at the end of the text may become a marker."""
        lengths = range(min(self._longest, len(text)), 0, -1)
        return next((length for length in lengths if text[-length:] in self._starts), 0)


class Thoughts:
    """One answer with thoughts in it.

    White space before a thought that begins an answer, and between a thought and the answer's first word, belongs to the
    marker, as in the chat templates of the models that have these markers; between words it stays.

    Args:
        delimiters: the model's markers.
        tail: how the prompt ends.
        stop: markers at which the request ends.
        calls: markers of calls, which stay in the content, by their names.
    """

    __slots__ = ("_delimiters", "_held", "_kept", "_last", "_stop", "_thinks", "_trims", "kind", "stopped")

    def __init__(
        self, delimiters: Delimiters, tail: str, stop: frozenset[str], calls: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self._delimiters = delimiters
        self._kept = frozenset(map(ord, calls.values()))
        self._stop = stop
        self._held = ""
        #: The last character of the answer; empty before the first.
        self._last = ""
        self._trims = False
        self.stopped = False
        self.kind: Kind = "reasoning" if delimiters.opened(tail) else "content"

    def push(self, text: str) -> list[Piece]:
        """See :meth:`tasks.engine.text.channels.Channels.push`."""
        if self.stopped:
            return []
        pieces: list[Piece] = []
        left = self._held + text
        while (found := self._next(left)) is not None:
            before, marker, left = found
            self._say(pieces, before)
            if self._ends_at(marker):
                self._held = ""
                return joined(pieces)
        keep = len(left) - self._unsure(left)
        self._held = left[keep:]
        self._say(pieces, left[:keep])
        return joined(pieces)

    def finish(self) -> list[Piece]:
        """See :meth:`tasks.engine.text.channels.Channels.finish`."""
        held, self._held = self._held, ""
        pieces: list[Piece] = []
        if not held.strip().startswith(tuple(self._delimiters.tokens) or "\0"):  # else it is half a marker of tokens
            self._say(pieces, held)
        return joined(pieces)

    @property
    def _at_start(self) -> bool:
        """Whether there is no word of the answer yet, or none behind the last thought."""
        return self.kind == "content" and (not self._last or self._trims)

    @property
    def _table(self) -> _Table:
        if self.kind == "reasoning":
            return self._delimiters.in_thought
        return self._delimiters.at_start if self._at_start else self._delimiters.in_answer

    def _next(self, text: str) -> tuple[str, str, str] | None:
        """Text before the next marker, the marker, and the text behind it; ``None`` where there is no whole one."""
        match = self._table.search(text)
        if match is None:
            return None
        before, after = text[: match.start()], text[match.end() :]
        if not self._at_start:
            return before, match[0], after
        if not before.strip():
            return "", match[0], after
        if self._delimiters.tokens:
            return before, match[0], after
        # Of plain text, only what ends an answer is a marker behind its first word.
        end = self._delimiters.in_answer.search(text)
        return None if end is None else (text[: end.start()], end[0], text[end.end() :])

    def _unsure(self, text: str) -> int:
        """Return how many characters at the end have to wait for what follows."""
        pending = self._table.pending_characters(text)
        if not self._at_start:
            return pending
        if not text[: len(text) - pending].strip():
            return len(text)
        return pending if self._delimiters.tokens else self._delimiters.in_answer.pending_characters(text)

    def _say(self, pieces: list[Piece], text: str) -> None:
        if strays := self._delimiters.strays:
            left_out = strays if self.kind == "reasoning" else dict.fromkeys(strays.keys() - self._kept)
            text = text.translate(left_out)
        if self.kind == "content":
            if self._trims:
                text = text.lstrip()
            if text:
                self._trims, self._last = False, text[-1]
        pieces.append(Piece(self.kind, text))

    def _ends_at(self, marker: str) -> bool:
        """Go on behind a marker, unless the request ends there."""
        self.stopped = marker in self._stop
        if marker in self._delimiters.closes and self.kind == "reasoning":
            self.kind = "content"
            self._trims = not self._last or self._last.isspace()
        elif marker in self._delimiters.opens:
            self.kind = "reasoning"
        return self.stopped

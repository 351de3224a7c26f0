"""Stop strings that name special tokens, which have no text that a stop string could be found in."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

#: Lone surrogates, one for each token: no decoded text has them, nor has a marker of :mod:`tasks.engine.text.formats`.
_FIRST_MARK = 0xDD00
_MOST_MARKS = 0x100


@dataclass(slots=True, frozen=True)
class StopTokens:
    """The special tokens in a request's stop strings.

    ``ends`` are tokens that are a stop string by themselves. ``marks`` has a character for each token that is a part of
    one, and ``words`` are the other stop strings with these characters in the place of the tokens' names.
    """

    words: tuple[str, ...]
    ends: frozenset[int] = frozenset()
    marks: Mapping[int, str] = field(default_factory=dict)

    def shown(self, text: str) -> str:
        """The text without those characters."""
        return text.translate(dict.fromkeys(map(ord, self.marks.values()))) if self.marks else text


class SpecialTokens:
    """Finds a vocabulary's special tokens in stop strings.

    Args:
        ids: the special tokens' ids, by their text.
    """

    def __init__(self, ids: Mapping[str, int]) -> None:
        self._ids = ids
        # The longest first: one name may be the beginning of another.
        names = sorted(filter(None, ids), key=len, reverse=True)
        self._any = re.compile("|".join(map(re.escape, names))) if names else None

    def stops(self, stop: tuple[str, ...], markers: Collection[int] = ()) -> StopTokens:
        """The meaning of these stop strings; ``markers`` are tokens that have a character already."""
        if self._any is None or not any(map(self._any.search, stop)):
            return StopTokens(stop)
        words: list[str] = []
        ends: set[int] = set()
        marks: dict[int, str] = {}

        def mark(found: re.Match[str]) -> str:
            token_id = self._ids[found[0]]
            if token_id in markers or (len(marks) == _MOST_MARKS and token_id not in marks):
                return found[0]
            return marks.setdefault(token_id, chr(_FIRST_MARK + len(marks)))

        for word in stop:
            token_id = self._ids.get(word)
            if token_id is not None and token_id not in markers:
                ends.add(token_id)
            else:
                words.append(self._any.sub(mark, word))
        return StopTokens(tuple(words), frozenset(ends), marks)

"""The form in which one model writes calls: its syntax, with the tokens of its vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from tasks.engine.tools.syntaxes import SYNTAXES, Syntax
from tasks.messages.encoding import to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.engine.tools.functions import Functions
    from tasks.engine.tools.region import Region

#: Lone surrogates: no decoded text has them, nor a marker of the reasoning or a token of a stop string.
_FIRST_MARK = 0xDE00


@dataclass(frozen=True)
class ToolForm:
    """The form of one model's calls.

    ``names`` has a character for each marker, or part of a marker, that is a token, by the token's text, and ``marks`` the same
    by its id.
    """

    syntax: Syntax
    names: Mapping[str, str]
    marks: Mapping[int, str]

    def marked(self, text: str) -> str:
        """A text of the syntax as it arrives: with characters in the place of tokens."""
        for name, mark in self.names.items():
            text = text.replace(name, mark)
        return text

    def shown(self, text: str) -> str:
        """Text that is no call after all, without markers."""
        for marker in (self.start, self.end):
            text = text.replace(marker, "") if marker else text
        return text.translate(self.silent)

    def unmarked(self, text: str) -> str:
        """Return a part of JSON text, where a token in a string stands for its name."""
        return text.translate(self._spoken)

    @cached_property
    def start(self) -> str:
        """The marker that begins a region."""
        return self.marked(self.syntax.start)

    @cached_property
    def end(self) -> str:
        """The marker that ends a region; empty where nothing does."""
        return self.marked(self.syntax.end)

    @cached_property
    def silent(self) -> dict[int, None]:
        """A translation that leaves out tokens that are no text."""
        return dict.fromkeys(map(ord, self.names.values()))

    @cached_property
    def _spoken(self) -> dict[int, str]:
        return {ord(mark): to_json(name, ensure_ascii=False)[1:-1] for name, mark in self.names.items()}

    def parted(self, text: str) -> tuple[str, str, str]:
        """Return the text before a region, its marker, and the region's own text; where none begins, all is before."""
        before, marker, inside = text.partition(self.start)
        at = before.find(self.syntax.bare) if self.syntax.bare else -1
        return (before, marker, inside) if at < 0 else (text[:at], self.syntax.bare, text[at:])

    def pending_characters(self, text: str) -> int:
        """Return how many characters at the end of the text may become the beginning of a region."""
        begins = [self.start, self.syntax.bare]
        sizes = range(min(max(map(len, begins)) - 1, len(text)), 0, -1)
        return next((size for size in sizes if any(begin.startswith(text[-size:]) for begin in begins)), 0)

    def region(self, functions: Functions) -> Region:
        """A new region."""
        return self.syntax.region(self.marked, functions)


def find_form(kind: str | None, special: Mapping[str, int], names: Mapping[str, str]) -> ToolForm | None:
    """Find out how a model writes calls; ``None`` where that is not known.

    Args:
        kind: the syntax's name.
        special: the ids of the vocabulary's tokens without text, by their names.
        names: the characters of tokens that mark the reasoning, by their names, which stay what they are.
    """
    syntax = SYNTAXES.get(kind or "")
    if syntax is None:
        return None
    # A token that has text is looked for as text: a model may write it in other tokens, too.
    here = {name for name in syntax.markers if name in special or name in names}
    if kind == "harmony":  # what begins a call is no token of its own, but the header of a message
        here |= set(syntax.markers)
    found = {
        name: names.get(name, chr(_FIRST_MARK + number)) for number, name in enumerate(syntax.markers) if name in here
    }
    return ToolForm(syntax, found, {special[name]: mark for name, mark in found.items() if name in special})

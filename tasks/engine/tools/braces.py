"""Calls as Gemma writes them: ``call:name{key:value,…}``, with text between two marks and no quotes around keys."""

from __future__ import annotations

import json
import re
from typing import Any

from tasks.engine.tools.region import BrokenCall, Call
from tasks.messages.encoding import to_json

_CALL = re.compile(r"\s*call:([\w.:-]+?)\s*(?=\{)")
_KEY = re.compile(r"\s*([^\s:{},\[\]]+)\s*:")
_BARE = re.compile(r"[^,{}\[\]]*")
#: Values that are nested more deeply are no call.
MOST_LEVELS = 64


class _OpenText(Exception):
    """The text ends between the two marks of a text."""


class Braces:
    """Reads one region of such calls.

    Args:
        mark: the character before and behind a text.
    """

    def __init__(self, mark: str) -> None:
        self._mark = mark

    def __call__(self, text: str) -> list[Call] | None:
        """The calls of a region; ``None`` where it ends in a text.

        Raises:
            BrokenCall: it is no call.
        """
        try:
            return self._calls(text)
        except _OpenText:
            return None

    def _calls(self, text: str) -> list[Call]:
        calls: list[Call] = []
        at = 0
        while text[at:].strip(" \n,"):
            match = _CALL.match(text, at)
            if match is None:
                raise BrokenCall("no call stands between its markers")
            arguments, at = self._value(text, match.end(), MOST_LEVELS)
            calls.append(Call(match[1], to_json(arguments, ensure_ascii=False)))
        if not calls:
            raise BrokenCall("nothing stands between its markers")
        return calls

    def _value(self, text: str, at: int, levels: int) -> tuple[Any, int]:
        """The value that begins here, and where it ends."""
        at = self._skipped(text, at)
        if not levels:
            raise BrokenCall("it is nested too deeply")
        if text.startswith(self._mark, at):
            begin = at + len(self._mark)
            end = text.find(self._mark, begin)
            if end < 0:
                raise _OpenText
            return text[begin:end], end + len(self._mark)
        if text[at : at + 1] == "{":
            return self._object(text, at + 1, levels - 1)
        if text[at : at + 1] == "[":
            return self._array(text, at + 1, levels - 1)
        match = _BARE.match(text, at)
        assert match is not None
        return _bare(match[0].strip()), match.end()

    def _object(self, text: str, at: int, levels: int) -> tuple[dict[str, Any], int]:
        found: dict[str, Any] = {}
        while text[(at := self._skipped(text, at)) : at + 1] != "}":
            if text.startswith(self._mark, at):  # a key that is marked as a text is
                key, at = self._value(text, at, levels)
                colon = _KEY.match(f"k{text[at:]}")
                at += colon.end() - 1 if colon else 0
            elif (match := _KEY.match(text, at)) is not None:
                key, at = match[1], match.end()
            else:
                raise BrokenCall("its arguments are cut off or have no names")
            found[str(key)], at = self._value(text, at, levels)
            at = self._behind_comma(text, at, "}")
        return found, at + 1

    def _array(self, text: str, at: int, levels: int) -> tuple[list[Any], int]:
        found: list[Any] = []
        while text[(at := self._skipped(text, at)) : at + 1] != "]":
            value, at = self._value(text, at, levels)
            found.append(value)
            at = self._behind_comma(text, at, "]")
        return found, at + 1

    def _behind_comma(self, text: str, at: int, close: str) -> int:
        at = self._skipped(text, at)
        if text[at : at + 1] == ",":
            return at + 1
        if text[at : at + 1] != close:
            raise BrokenCall("its arguments are cut off")
        return at

    @staticmethod
    def _skipped(text: str, at: int) -> int:
        return at + len(text[at:]) - len(text[at:].lstrip())


def _bare(text: str) -> Any:
    """A number, a word of JSON's, or a text without marks."""
    try:
        return json.loads(text)
    except ValueError:
        return text

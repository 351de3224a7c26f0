"""Calls whose arguments stand between tags, each as text: the XML-like syntaxes."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.engine.tools.region import BrokenCall, Call
from tasks.engine.tools.values import value_of
from tasks.messages.encoding import to_json

if TYPE_CHECKING:
    from tasks.engine.tools.functions import Functions

_CDATA = re.compile(r"\s*<!\[CDATA\[(.*)\]\]>\s*", re.DOTALL)
_OPEN_CDATA = "<![CDATA["


@dataclass(frozen=True)
class TagSyntax:
    """A syntax of calls between tags; all are regular expressions.

    ``call`` opens a call and has the group ``name``. ``argument`` opens an argument and has the group ``key``; where it has the
    group ``type``, that says ``string`` (or ``true``) for text, and otherwise that the value is JSON. ``close`` closes an
    argument and ``close_call`` a call, if anything does. ``json`` opens arguments that stand as one JSON object, closed by
    ``close_json``.
    """

    call: str
    argument: str
    close: str
    close_call: str = ""
    json: str = ""
    close_json: str = ""
    strips: bool = False
    cdata: bool = False


class Tags:
    """Reads one region of such calls.

    Args:
        syntax: how they stand.
        functions: the request's; their schemas say what a text stands for.
    """

    def __init__(self, syntax: TagSyntax, functions: Functions) -> None:
        self._functions = functions
        self._strips, self._cdata = syntax.strips, syntax.cdata
        #: Whether a region may have several calls: what closes one is not what ends the region.
        self._repeats = bool(syntax.close_call)
        self._call = re.compile(rf"\s*{syntax.call}")
        self._argument = re.compile(rf"\s*{syntax.argument}")
        self._close_call = re.compile(rf"\s*{syntax.close_call}")
        # A closing tag in a value is a part of the value, unless another tag stands where one has to.
        call_ends = syntax.close_call or r"\Z"
        following = rf"\s*(?:{syntax.argument}|{call_ends})"
        self._close = re.compile(rf"{syntax.close}(?={following})")
        self._json = re.compile(rf"\s*{syntax.json}") if syntax.json else None
        self._close_json = re.compile(rf"{syntax.close_json}(?=\s*(?:{call_ends}))")

    def __call__(self, text: str) -> list[Call] | None:
        """The calls of a region; ``None`` where it ends in an argument.

        Raises:
            BrokenCall: it is no call.
        """
        calls: list[Call] = []
        at = 0
        while text[at:].strip():
            match = self._call.match(text, at)
            if match is None:
                raise BrokenCall("no call stands between its markers")
            found = self._arguments(text, match.end(), html.unescape(match["name"]).strip())
            if found is None:
                return None
            call, at = found
            calls.append(call)
            if not self._repeats and text[at:].strip():
                raise BrokenCall("its arguments do not end where it does")
        if not calls:
            raise BrokenCall("nothing stands between its markers")
        return calls

    def _arguments(self, text: str, at: int, name: str) -> tuple[Call, int] | None:
        """The call of this name, whose arguments begin here, and where it ends."""
        arguments: dict[str, Any] = {}
        arguments_text = ""
        while True:
            if self._json is not None and (match := self._json.match(text, at)) is not None:
                closed = self._close_json.search(text, match.end())
                if closed is None:
                    return None
                arguments_text, at = text[match.end() : closed.start()], closed.end()
                continue
            match = self._argument.match(text, at)
            if match is None:
                break
            closed = self._close.search(text, self._search_from(text, match.end()))
            if closed is None:
                return None
            raw, at = self._raw(text[match.end() : closed.start()]), closed.end()
            key = html.unescape(match["key"]).strip()
            arguments[key] = value_of(raw, self._functions, name, key, is_text=_is_text(match))
        end = self._close_call.match(text, at)
        if end is None:
            raise BrokenCall("its arguments do not end where it does")
        return Call(name, arguments_text or to_json(arguments, ensure_ascii=False)), end.end()

    def _search_from(self, text: str, at: int) -> int:
        """Return where to look for the end of a value: behind its CDATA, if it is one."""
        if not self._cdata or not text[at:].lstrip().startswith(_OPEN_CDATA):
            return at
        end = text.find("]]>", at)
        return len(text) if end < 0 else end

    def _raw(self, value: str) -> str:
        """The value's own text, without what the syntax puts around it."""
        if self._cdata and (match := _CDATA.fullmatch(value)) is not None:
            return match[1]
        if self._strips:
            return value.strip()
        return value.removeprefix("\n").removesuffix("\n")


def _is_text(match: re.Match[str]) -> bool | None:
    """Return whether an argument is text, where the syntax itself says so."""
    kind = match.groupdict().get("type")
    return None if kind is None else kind in ("string", "true")

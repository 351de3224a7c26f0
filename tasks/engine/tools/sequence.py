"""Calls whose arguments are JSON, each behind a header: read as they come, to the character."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import regex

from tasks.engine.tools.json_span import JsonSpan
from tasks.engine.tools.region import BrokenCall, Call
from tasks.messages.encoding import to_json

if TYPE_CHECKING:
    from collections.abc import Callable

#: A header that is longer is none.
MOST_HEADER_CHARACTERS = 1024
_NAME_KEYS = ("name", "function", "tool")
_ARGUMENT_KEYS = ("arguments", "parameters")


@dataclass(frozen=True)
class JsonSyntax:
    """A syntax of calls with JSON arguments in a region; all but ``unquote`` are regular expressions.

    ``header`` matches what stands before the arguments, with the group ``name``, which ``unquote`` reads. ``trailer`` stands
    behind them, ``between`` between calls, and ``end`` behind the last one; where that is empty the region ends before what
    can be no further header. ``any_order`` says that a call is one object, whose keys may stand in another order.
    """

    header: str
    trailer: str = ""
    between: str = ""
    end: str = ""
    any_order: bool = False
    unquote: Callable[[str], Any] = str

    @cached_property
    def compiled(self) -> tuple[regex.Pattern[str], regex.Pattern[str], regex.Pattern[str], regex.Pattern[str] | None]:
        """Header, trailer, between and end."""
        end = regex.compile(self.end) if self.end else None
        return regex.compile(self.header), regex.compile(self.trailer), regex.compile(self.between), end


class JsonCalls:
    """A region of such calls: see :class:`tasks.engine.tools.region.Region`.

    Args:
        syntax: how they stand.
    """

    def __init__(self, syntax: JsonSyntax) -> None:
        self.calls: list[Call] = []
        self.rest = ""
        self._syntax = syntax
        self._header, self._trailer, self._between, self._end = syntax.compiled
        self._body = ""
        #: Where the text begins that belongs to no whole call.
        self._start = 0
        self._name: str | None = None
        self._span: JsonSpan | None = None
        self._value_is_whole = False
        self._fault = ""

    @property
    def begun(self) -> Call | None:
        """See :attr:`tasks.engine.tools.region.Region.begun`."""
        if self._name is None or self._span is None:
            return None
        return Call(self._name, self._body[self._span.start : self._span.at])

    @property
    def unread(self) -> str:
        """See :attr:`tasks.engine.tools.region.Region.unread`."""
        return self._body[self._start :]

    def push(self, text: str) -> str | None:
        """See :meth:`tasks.engine.tools.region.Region.push`."""
        self._body += text
        while not self._fault:
            if self._span is None and (rest := self._rest_at_end()) is not None:
                self._start = len(self._body)
                return rest
            if not (self._go_on() if self._span is not None else self._begin()):
                break
        if self._fault:
            self._break_at_end()
        return None

    def finish(self) -> None:
        """See :meth:`tasks.engine.tools.region.Region.finish`. The end marker may be missing."""
        if self._end is None and self.calls and self._span is None and not self._fault:
            self.rest, self._start = self.unread, len(self._body)
        if self._fault or not self.calls or self._span is not None or self.unread.strip():
            raise BrokenCall(self._fault or "it was cut off")

    def _rest_at_end(self) -> str | None:
        """Return the text behind the region, if it ends here."""
        if self._end is not None:
            match = self._end.match(self._body, self._start)
            if match is not None and not self.calls:
                self._fault = "nothing stands between its markers"
            return self._body[match.end() :] if match is not None and self.calls else None
        if not self.calls or not self.unread.strip():
            return None
        # Without an end marker, the next call or the end of the answer is what tells.
        may_go_on = self._header.match(self._body, self._start, partial=True)
        return None if may_go_on else self.unread

    def _begin(self) -> bool:
        """Find the next call; whether there is one."""
        if self._fault:
            return False
        between = self._between.match(self._body, self._start)
        at = between.end() if between is not None else self._start
        match = self._header.match(self._body, at, partial=True)
        if match is not None and not match.partial:
            self._name, self._span = self._unquoted(match["name"]), JsonSpan(match.end())
            return True
        left = self._body[at:]
        if match is None and self._syntax.any_order and left.lstrip()[:1] == "{":
            self._span = JsonSpan(at)
            return True
        may_end = self._end is not None and self._end.match(self._body, self._start, partial=True)
        if (match is None and not may_end and left.strip()) or len(left) > MOST_HEADER_CHARACTERS:
            self._fault = "no call stands between its markers"
        return False

    def _go_on(self) -> bool:
        """Read the current call's arguments, and what follows them; whether the call is whole."""
        assert self._span is not None
        self._value_is_whole = self._value_is_whole or self._span.read(self._body)
        if not self._value_is_whole:
            return False
        text, end = self._body[self._span.start : self._span.at], self._span.at
        if self._name is None:
            call = self._from_object(text)
        else:
            match = self._trailer.match(self._body, self._span.at, partial=True)
            if match is None or match.partial:
                self._fault = "" if match else "its arguments do not end where it does"
                return False
            call, end = Call(self._name, _unwrapped(text)), match.end()
        if call is None:
            return False
        self.calls.append(call)
        self._start, self._name, self._span, self._value_is_whole = end, None, None, False
        return True

    def _unquoted(self, name: str) -> str:
        try:
            return str(self._syntax.unquote(name))
        except ValueError:
            return name

    def _from_object(self, text: str) -> Call | None:
        """A call out of an object whose keys stand in another order, or have other names."""
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            self._fault = "it is not JSON"
            return None
        if isinstance(found.get("function"), dict):  # OpenAI's own shape
            found = found["function"]
        name = next((found[key] for key in _NAME_KEYS if isinstance(found.get(key), str)), None)
        if name is None:
            self._fault = "it names no function"
            return None
        arguments: Any = next((found[key] for key in _ARGUMENT_KEYS if key in found), {})
        return Call(name, _unwrapped(to_json(arguments, ensure_ascii=False)))

    def _break_at_end(self) -> None:
        """End a broken region at its end marker, or at once where it has none."""
        if self._end is None:
            raise BrokenCall(self._fault)
        if (match := self._end.search(self._body, self._start)) is not None:
            self.rest = self._body[match.end() :]
            self._body = self._body[: match.start()]
            raise BrokenCall(self._fault)


def _unwrapped(value: str) -> str:
    """The arguments of a model that puts their JSON into a text once more, or says that there are none."""
    if value == "null":
        return "{}"
    if not value.startswith('"'):
        return value
    try:
        return str(json.loads(value)) or "{}"
    except ValueError:
        return value

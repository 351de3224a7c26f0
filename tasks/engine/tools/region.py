"""One run of calls in an answer, between a start marker and its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tasks.messages.encoding import to_json

if TYPE_CHECKING:
    from collections.abc import Callable


class BrokenCall(ValueError):
    """The text between the markers is no call."""


@dataclass(slots=True, frozen=True)
class Call:
    """A call as the model wrote it: the function's name, and its arguments as JSON text."""

    name: str
    arguments: str

    def as_text(self) -> str:
        """The call as text, for one that cannot be made."""
        return f'{{"name": {to_json(self.name)}, "arguments": {self.arguments}}}'


class Region(Protocol):
    """Takes the text behind a start marker."""

    @property
    def calls(self) -> list[Call]:
        """The whole calls so far, in order."""
        ...

    @property
    def begun(self) -> Call | None:
        """The call that has begun and is not whole, with its arguments so far, as far as that can be told."""
        ...

    @property
    def unread(self) -> str:
        """The text that belongs to no whole call."""
        ...

    def push(self, text: str) -> str | None:
        """Take text. Once the region has ended, return what is behind it.

        Raises:
            BrokenCall: the region has ended, and its :attr:`unread` text is no call; what is behind it is in :attr:`rest`.
        """
        ...

    @property
    def rest(self) -> str:
        """The text behind a broken region, or one whose end the answer's end alone told."""
        ...

    def finish(self) -> None:
        """The answer is over; what is behind the region is in :attr:`rest`.

        Raises:
            BrokenCall: a call was cut off.
        """
        ...


class Delimited:
    """A region that is read when its end marker comes.

    Args:
        end: the end marker.
        read: reads the calls in the text before an end marker. It gives ``None`` where the text ends inside of an argument,
            which the marker is a part of, then, and raises :class:`BrokenCall` for what is no call.
        closes_calls: whether the end marker alone says that a call is whole. Without it more arguments might have come.
    """

    begun = None

    def __init__(self, end: str, read: Callable[[str], list[Call] | None], *, closes_calls: bool = False) -> None:
        self.calls: list[Call] = []
        self._end = end
        self._closes_calls = closes_calls
        self._read = read
        self._body = ""
        self._seen = 0
        self._rest = ""

    @property
    def unread(self) -> str:
        """See :attr:`Region.unread`."""
        return self._body

    @property
    def rest(self) -> str:
        """See :attr:`Region.rest`."""
        return self._rest

    def push(self, text: str) -> str | None:
        """See :meth:`Region.push`."""
        self._body += text
        while (at := self._body.find(self._end, self._seen)) >= 0:
            self._seen = at + len(self._end)
            inside, behind = self._body[:at], self._body[self._seen :]
            try:
                calls = self._read(inside)
            except BrokenCall:
                self._body, self._rest = inside, behind
                raise
            if calls is not None:
                self.calls, self._body = calls, ""
                return behind
        self._seen = max(self._seen, len(self._body) - len(self._end) + 1)
        return None

    def finish(self) -> None:
        """See :meth:`Region.finish`. A model may end its answer in the place of the marker, where calls end before it."""
        calls = None if self._closes_calls else self._read(self._body)
        if calls is None:
            raise BrokenCall("it was cut off")
        self.calls, self._body = calls, ""

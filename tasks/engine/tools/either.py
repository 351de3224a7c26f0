"""A region of a family that has more than one syntax: the first character tells which."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.engine.tools.region import BrokenCall

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tasks.engine.tools.region import Call, Region


class Either:
    """See :class:`tasks.engine.tools.region.Region`.

    Args:
        by_first: makes a region whose first character is this.
        otherwise: makes all others.
    """

    def __init__(self, by_first: Mapping[str, Callable[[], Region]], otherwise: Callable[[], Region]) -> None:
        self._by_first, self._otherwise = by_first, otherwise
        self._region: Region | None = None
        self._held = ""

    @property
    def calls(self) -> list[Call]:
        """See :attr:`Region.calls`."""
        return [] if self._region is None else self._region.calls

    @property
    def begun(self) -> Call | None:
        """See :attr:`Region.begun`."""
        return None if self._region is None else self._region.begun

    @property
    def unread(self) -> str:
        """See :attr:`Region.unread`."""
        return self._held if self._region is None else self._region.unread

    @property
    def rest(self) -> str:
        """See :attr:`Region.rest`."""
        return "" if self._region is None else self._region.rest

    def push(self, text: str) -> str | None:
        """See :meth:`Region.push`."""
        if self._region is None:
            self._held += text
            first = self._held.lstrip()[:1]
            if not first:
                return None
            self._region = self._by_first.get(first, self._otherwise)()
            text = self._held
        return self._region.push(text)

    def finish(self) -> None:
        """See :meth:`Region.finish`."""
        if self._region is None:
            raise BrokenCall("nothing stands behind its marker")
        self._region.finish()

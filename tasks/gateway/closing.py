"""The end of a gateway, which all of its open answers hear of."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio


class Closing:
    """Whether the gateway was told to stop. Used on the event loop's thread."""

    def __init__(self) -> None:
        self.has_begun = False
        self._listeners: set[asyncio.Event] = set()

    def add(self, listener: asyncio.Event) -> None:
        """Have this event be set when the end begins."""
        self._listeners.add(listener)
        if self.has_begun:
            listener.set()

    def remove(self, listener: asyncio.Event) -> None:
        """Forget the event."""
        self._listeners.discard(listener)

    def begin(self) -> None:
        """The gateway was told to stop."""
        self.has_begun = True
        for listener in self._listeners:
            listener.set()

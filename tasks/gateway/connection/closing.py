"""The end of a gateway, which all of its open answers hear of."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.gateway.connection.bell import Bell


class Closing:
    """Whether the gateway was told to stop. Used on the event loop's thread."""

    def __init__(self) -> None:
        self.has_begun = False
        self._listeners: set[Bell] = set()

    def add(self, listener: Bell) -> None:
        """Ring this bell when the end begins."""
        self._listeners.add(listener)
        if self.has_begun:
            listener.ring()

    def remove(self, listener: Bell) -> None:
        """Forget the bell."""
        self._listeners.discard(listener)

    def begin(self) -> None:
        """The gateway was told to stop."""
        self.has_begun = True
        for listener in self._listeners:
            listener.ring()

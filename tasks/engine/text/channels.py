"""The channels of an answer: which of a model's text is its answer, and which is what it thinks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tasks.engine.text.piece import Piece

if TYPE_CHECKING:
    from tasks.messages.answer import Kind


class Channels(Protocol):
    """A state machine over text, for one request: markers go in and pieces without them come out.

    A token that is a marker arrives as one character that no text has (:mod:`tasks.engine.text.formats`), so that the same
    characters in ordinary tokens are text. What comes out does not depend on how the text was cut.
    """

    @property
    def kind(self) -> Kind:
        """The kind of the next text, as far as is known."""
        ...

    @property
    def stopped(self) -> bool:
        """Whether a marker came that the request wants to stop at; nothing is released after it."""
        ...

    def push(self, text: str, /) -> list[Piece]:
        """Take text, and return what is certain by now. Half a marker is held back."""
        ...

    def finish(self) -> list[Piece]:
        """Return what was held back and is text after all."""
        ...


class OneChannel:
    """The channels of a model that does not think: everything is content."""

    kind: Kind = "content"
    stopped = False

    def push(self, text: str) -> list[Piece]:
        """Return the text as it is."""
        return [Piece("content", text)] if text else []

    def finish(self) -> list[Piece]:
        """Nothing is ever held back."""
        return []

"""Chooses the shape of an answer by its endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from tasks.gateway.endpoints.chat import ChatShape
from tasks.gateway.endpoints.completions import CompletionShape
from tasks.gateway.endpoints.response_shape import ResponseShape

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tasks.gateway.connection.refusal import Refusal
    from tasks.gateway.endpoints.pieces import Choice, Finish, Piece
    from tasks.gateway.records.record import Record


class Shape(Protocol):
    """One answer's shape. ``reads_from`` is how much of each choice need not be read again."""

    reads_from: Sequence[int]

    def begin(self) -> list[bytes]:
        """The first events of a stream."""

    def say(self, part: Piece | Finish) -> bytes:
        """The events for a piece of the answer."""

    def note(self, part: Piece | Finish) -> None:
        """Take a piece of an answer that is not streamed."""

    def end(self, choices: Sequence[Choice]) -> list[bytes]:
        """The last events of a stream."""

    def fail(self, refusal: Refusal) -> list[bytes]:
        """The last events of a stream whose request has failed."""

    def whole(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """The answer of a request without a stream."""


#: By :attr:`tasks.gateway.records.record.Record.kind`.
SHAPES: Mapping[str, Callable[[Record, Sequence[int]], Shape]] = {
    "chat": ChatShape,
    "completion": CompletionShape,
    "response": ResponseShape,
}


def shape_of(record: Record, places: Sequence[int] = ()) -> Shape:
    """The shape of a request's answer, for a client that has so much of each choice."""
    return SHAPES[record.kind](record, places)

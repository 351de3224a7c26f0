"""A piece of text of one kind: what an assembler makes of tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tasks.messages.answer import Kind


class Piece(NamedTuple):
    """Text of one kind, never empty where it comes out of an assembler.

    Of the kind ``tool_call`` it is a part of the arguments of the call of this number. The first piece of a call has the
    function's name, and its text may be empty.
    """

    kind: Kind
    text: str
    call: int | None = None
    name: str = ""


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """The pieces with neighbours of one kind, and of one call, as one, and without empty ones."""
    whole: list[Piece] = []
    for piece in pieces:
        if whole and (whole[-1].kind, whole[-1].call) == (piece.kind, piece.call):
            whole[-1] = whole[-1]._replace(text=whole[-1].text + piece.text)
        elif piece.text or piece.name:
            whole.append(piece)
    return whole

"""A piece of text of one kind: what an assembler makes of tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tasks.messages.answer import Kind


class Piece(NamedTuple):
    """Text of one kind, never empty where it comes out of an assembler."""

    kind: Kind
    text: str


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """The pieces with neighbours of one kind as one, and without empty ones."""
    whole: list[Piece] = []
    for piece in pieces:
        if whole and whole[-1].kind == piece.kind:
            whole[-1] = Piece(piece.kind, whole[-1].text + piece.text)
        elif piece.text:
            whole.append(piece)
    return whole

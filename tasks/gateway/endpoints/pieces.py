"""An answer in pieces, each with its place, which depends on the text alone: it is the same for every reader of the journal."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from tasks.client.reader.text_buffer import TextBuffer
from tasks.messages.tools import Calls, delta

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.client.reader.chunks import Chunk
    from tasks.messages.answer import Usage


class Piece(NamedTuple):
    """Text of one kind of one choice.

    ``place`` counts what of the choice has been sent with it: characters of all kinds, and one for the name of a function that is
    called. ``tool_call`` is a part of a call in OpenAI's shape. Another reader may get the journal's
    tokens in other chunks (after a worker has died), and still the same text at the same place.
    """

    choice: int
    kind: str
    text: str
    place: int
    tool_call: dict[str, Any] | None = None
    logprobs: Sequence[dict[str, Any]] = ()


class Finish(NamedTuple):
    """The end of one choice."""

    choice: int
    reason: str
    usage: Usage
    place: int
    logprobs: Sequence[dict[str, Any]] = ()


class Choice:
    """One choice while it is read.

    Args:
        number: its index in the answer.
        after: the place up to which the client has it.
    """

    def __init__(self, number: int, after: int = 0) -> None:
        self.number = number
        self._texts: defaultdict[str, TextBuffer] = defaultdict(TextBuffer)
        self.calls = Calls()
        self.logprobs: list[dict[str, Any]] = []
        self.tokens = 0
        self.finish: Finish | None = None
        self.has_failed = False
        self._after = after
        self._place = 0
        self._pending: list[dict[str, Any]] = []

    def text(self, kind: str) -> str:
        """All text of this kind so far."""
        return str(self._texts[kind])

    def take(self, chunk: Chunk) -> list[Piece | Finish]:
        """Return the pieces of a chunk that the client has not got yet."""
        self.tokens = max(self.tokens, chunk.index + len(chunk.ids))
        parts: list[Piece | Finish] = []
        # A token that completes no character has a probability and no text: it goes out with the next text.
        if chunk.kind == "content":
            self._pending.extend(chunk.logprobs or ())
        if chunk.text or chunk.tool_call:
            parts.extend(self._pieces(chunk))
        if chunk.finish_reason is not None:
            parts.append(self._end(chunk))
        return parts

    def _pieces(self, chunk: Chunk) -> list[Piece | Finish]:
        names = chunk.tool_call is not None and "id" in chunk.tool_call
        begin, self._place = self._place, self._place + len(chunk.text) + names
        if chunk.tool_call is not None:
            self.calls.add(chunk.tool_call)
        self._texts[chunk.kind].add(chunk.text)
        logprobs = self._take_logprobs()
        seen = max(0, self._after - begin)
        unseen = chunk.text[max(0, seen - names) :]
        if seen >= len(chunk.text) + names:
            return []
        call = chunk.tool_call
        if call is not None and seen:
            call = delta(call["index"], unseen)
        return [
            Piece(
                choice=self.number,
                kind=chunk.kind,
                text=unseen,
                place=self._place,
                tool_call=call,
                logprobs=logprobs,
            )
        ]

    def _end(self, chunk: Chunk) -> Finish:
        assert chunk.finish_reason is not None
        self.finish = Finish(
            choice=self.number,
            reason=chunk.finish_reason,
            usage=chunk.usage or {},
            place=self._place + 1,
            logprobs=self._take_logprobs(),
        )
        return self.finish

    def _take_logprobs(self) -> list[dict[str, Any]]:
        taken, self._pending = self._pending, []
        self.logprobs.extend(taken)
        return taken

"""The answer of ``/v1/responses``: its object, and its events, each with a number that any gateway gives it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.gateway.connection import frames
from tasks.gateway.endpoints.pieces import Finish
from tasks.gateway.endpoints.response_object import OpenItem, response_object

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.gateway.connection.refusal import Refusal
    from tasks.gateway.endpoints.pieces import Choice, Piece
    from tasks.gateway.records.record import Record

#: OpenAI's codes of a response's error are few.
_CODES = {400: "invalid_prompt", 404: "invalid_prompt", 429: "rate_limit_exceeded"}


class ResponseShape:
    """The answer's shape.

    An event's number counts what it carries: one for each event, but a delta counts its characters. So numbers grow, and
    depend on the text alone: a client that continues a stream may get the text in other deltas.

    Args:
        record: the request's record.
        places: the number of the last event that the client has.
    """

    #: Every reader puts the numbers together from the start.
    reads_from: Sequence[int] = ()

    def __init__(self, record: Record, places: Sequence[int] = ()) -> None:
        self._record = record
        self._has = places[0] if places else -1
        self._count = 0
        self._items: list[OpenItem] = []

    def begin(self) -> list[bytes]:
        """The first events of a stream."""
        response = response_object(self._record, "in_progress", [])
        return [
            self._event("response.created", response={**response, "status": "queued"}),
            self._event("response.in_progress", response=response),
        ]

    def say(self, part: Piece | Finish) -> bytes:
        """The events for a piece of the answer."""
        if isinstance(part, Finish):
            return b"".join(self._close())
        events = [] if self._is_continued(part) else [*self._close(), *self._open(part)]
        item = self._items[-1]
        item.add(part.text, part.logprobs)
        delta = self._delta(item.delta_type, part.text, **item.where, **({"logprobs": []} if item.is_text else {}))
        return b"".join([*events, delta])

    def note(self, part: Piece | Finish) -> None:
        """Take a piece of an answer that is not streamed."""
        self.say(part)

    def end(self, choices: Sequence[Choice]) -> list[bytes]:
        """The last event of a stream."""
        whole = self.whole(choices)
        return [self._event(f"response.{whole['status']}", response=whole)]

    def fail(self, refusal: Refusal) -> list[bytes]:
        """The last event of a stream whose request has failed."""
        output = [item.whole() for item in self._items]
        failed = response_object(self._record, "failed", output, error=error_of(refusal))
        return [self._event("response.failed", response=failed)]

    def whole(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """The answer of a request without a stream."""
        choice = choices[0]
        assert choice.finish is not None
        cut = choice.finish.reason in ("length", "deadline")
        return response_object(
            self._record,
            "incomplete" if cut else "completed",
            [item.whole() for item in self._items],
            usage=choice.finish.usage,
        )

    def _is_continued(self, piece: Piece) -> bool:
        names = piece.tool_call is not None and "id" in piece.tool_call
        return bool(self._items) and not self._items[-1].is_closed and self._items[-1].kind == piece.kind and not names

    def _open(self, piece: Piece) -> list[bytes]:
        item = OpenItem(self._record.id, len(self._items), piece.kind, piece.tool_call)
        self._items.append(item)
        added = self._event("response.output_item.added", output_index=item.number, item=item.begun())
        if not item.is_text:
            return [added]
        part = {"type": "output_text", "text": "", "annotations": []}
        return [added, self._event("response.content_part.added", **item.where, part=part)]

    def _close(self) -> list[bytes]:
        if not self._items or self._items[-1].is_closed:
            return []
        item = self._items[-1]
        item.is_closed = True
        done = [self._event(item.done_type, **item.where, **item.done)]
        if item.is_text:
            part = item.whole()["content"][0]
            done.append(self._event("response.content_part.done", **item.where, part=part))
        return [*done, self._event("response.output_item.done", output_index=item.number, item=item.whole())]

    def _event(self, name: str, /, **fields: Any) -> bytes:
        """An event, or nothing where the client has it."""
        self._count += 1
        return self._numbered(name, self._count - 1, fields) if self._count - 1 > self._has else b""

    def _delta(self, name: str, text: str, **fields: Any) -> bytes:
        """Return an event with the part of this text that the client has not got."""
        begin, self._count = self._count, self._count + len(text)
        unseen = text[max(0, self._has + 1 - begin) :]
        return self._numbered(name, self._count - 1, {**fields, "delta": unseen}) if unseen else b""

    def _numbered(self, name: str, sequence_number: int, fields: dict[str, Any]) -> bytes:
        data = {"type": name, "sequence_number": sequence_number, **fields}
        return frames.event(data, f"{self._record.id}:{sequence_number}", name)


def error_of(refusal: Refusal) -> dict[str, str]:
    """The error of a response that has failed."""
    return {"code": _CODES.get(refusal.status, "server_error"), "message": str(refusal)}

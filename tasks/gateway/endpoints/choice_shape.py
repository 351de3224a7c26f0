"""Shared by the two older interfaces: an answer of choices, and events that each say where every choice is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from tasks.gateway.connection import frames
from tasks.gateway.endpoints.usage import usage_of
from tasks.messages.encoding import to_compact_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.gateway.connection.refusal import Refusal
    from tasks.gateway.endpoints.pieces import Choice, Finish, Piece
    from tasks.gateway.records.record import Record


class ChoiceShape:
    """An answer of choices.

    Args:
        record: the request's record.
        places: how much of each choice the client has.
    """

    #: OpenAI's names of the whole answer, and of an event of its stream.
    WHOLE: ClassVar[str]
    CHUNK: ClassVar[str]

    def __init__(self, record: Record, places: Sequence[int] = ()) -> None:
        self._record = record
        self.reads_from = places
        self._places = [*places] or [0] * record.choices
        #: The beginning of every event's data: the fields that they all have in common are encoded once.
        self._beginning = f"{to_compact_json(self._head(self.CHUNK))[:-1]},"

    def note(self, part: Piece | Finish) -> None:
        """Nothing: :meth:`whole` takes it from the choices."""

    def end(self, choices: Sequence[Choice]) -> list[bytes]:
        """The last events of a stream."""
        if not self._record.include_usage:
            return [frames.DONE]
        return [self._event({"choices": [], "usage": self._usage(choices)}), frames.DONE]

    def fail(self, refusal: Refusal) -> list[bytes]:
        """The last event of a stream whose request has failed: without it SDKs take a cut stream for a whole answer."""
        return [frames.event(refusal.body)]

    def whole(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """The answer of a request without a stream."""
        shaped = [self._choice(choice) for choice in choices]
        return {**self._head(self.WHOLE), "choices": shaped, "usage": self._usage(choices)}

    def _choice(self, choice: Choice) -> dict[str, Any]:
        """A choice that has ended."""
        raise NotImplementedError

    def _choice_event(self, part: Piece | Finish, choice: dict[str, Any]) -> bytes:
        """The event for a piece of a choice."""
        self._places[part.choice] = part.place
        return self._chunk(choice)

    def _plain_event(self, part: Piece, text: str) -> bytes:
        """The same for text alone, here as a member of a JSON object. Nearly all events are: they need no encoder of objects."""
        self._places[part.choice] = part.place
        usage = ',"usage":null' if self._record.include_usage else ""
        return self._framed(
            f'"choices":[{{"index":{part.choice},{text},"logprobs":null,"finish_reason":null}}]{usage}}}'
        )

    def _chunk(self, choice: dict[str, Any]) -> bytes:
        return self._event({"choices": [choice], **({"usage": None} if self._record.include_usage else {})})

    def _event(self, data: dict[str, Any]) -> bytes:
        return self._framed(to_compact_json(data)[1:])

    def _framed(self, rest: str) -> bytes:
        places = ".".join(map(str, self._places))  # from where the stream can be continued
        return frames.framed(self._beginning + rest, f"{self._record.id}:{places}")

    def _usage(self, choices: Sequence[Choice]) -> dict[str, Any]:
        return usage_of(choices, self._record.echo.get("prompts", 1))

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._record.id, "object": kind, "created": self._record.created, "model": self._record.model}

"""The work of ``embed`` on a worker. Its journal has a start and an end; the vectors are in the result alone."""

from __future__ import annotations

import base64
from array import array
from typing import TYPE_CHECKING, Any

from tasks.client.answers.answer import Vectors
from tasks.client.request.embedding import EMBEDDING
from tasks.errors import DeadlineExceeded, EngineFailed
from tasks.messages.embedding import Embed, Embedded
from tasks.messages.journal import End, Error, Release
from tasks.worker.attempts.attempt import Attempt

if TYPE_CHECKING:
    from tasks.client.request.embedding import Parameters
    from tasks.messages.answer import Usage
    from tasks.messages.engine import Event
    from tasks.messages.journal import Entry
    from tasks.messages.load import Ready
    from tasks.worker.attempts.attempt import Outcome
    from worker_config.catalogue import ModelEntry

#: A 32-bit float is told from its neighbours by so many digits; the decimal text of its double has twice as many.
DIGITS = 9
ITEM_BYTES = 4


class EmbedAttempt(Attempt):
    """An attempt at vectors."""

    #: The name of its answers, in errors.
    made = "vectors"
    embedded: Embedded | None = None

    @property
    def usage(self) -> Usage:
        """Tokens, as OpenAI counts them for vectors."""
        return {"prompt_tokens": self.prompt_tokens, "total_tokens": self.prompt_tokens}

    def take(self, event: Event) -> Entry:
        """Note an engine's event, and give the journal's entry for it."""
        if isinstance(event, Embedded):
            self.embedded = event
            return self.end("stop")
        return super().take(event)

    def late(self) -> Error:
        """The entry that ends the request because its time is over: a part of the vectors is of no use."""
        return self.error(
            DeadlineExceeded.code, f"the time for the request passed before all {self.made} were computed"
        )

    def found(self, outcome: Outcome) -> None:
        """The journal had this end before. Where that was a success, its worker died before it stored the vectors."""
        if isinstance(outcome, End) and outcome.finish_reason == "stop":
            self.is_recorded = True
        else:
            self.finish(outcome)

    def settle(self, entry: Entry) -> None:
        """End a computation that no journal counts the crashes of."""
        if isinstance(entry, Release) and entry.crashed:
            entry = self.error(
                EngineFailed.code, f"the engine died while the {self.made} were computed once more; send it again"
            )
        super().settle(entry)


class Embedding:
    """See :class:`tasks.worker.attempts.work.Work`."""

    form = EMBEDDING
    attempt = EmbedAttempt

    def message(self, attempt: EmbedAttempt, given: Parameters, entry: ModelEntry, ready: Ready | None) -> Embed:
        """The inputs, with the prompt that the catalogue has for their type."""
        return Embed(
            task_id=attempt.task_id,
            inputs=given.input,
            input_type=given.input_type,
            prompt=entry.prompts.get(given.input_type) if given.input_type is not None else None,
            dimensions=given.dimensions,
            isolate=attempt.isolate,
            again=attempt.number > 1,
        )

    def answer(self, attempt: EmbedAttempt, given: Parameters, end: End, worker: str) -> Vectors:
        """Return OpenAI's answer, with the fields of every answer here."""
        assert attempt.embedded is not None
        vectors = _encoded(attempt.embedded, given.encoding_format)
        return Vectors(
            object="list",
            data=[{"object": "embedding", "index": n, "embedding": vector} for n, vector in enumerate(vectors)],
            model=attempt.model,
            usage=end.usage,
            timing=end.timing,
            worker=worker,
            attempt=end.attempt,
        )


def _encoded(embedded: Embedded, encoding_format: str) -> list[Any]:
    """Each vector as a list of numbers, or as its little-endian 32-bit floats in base64."""
    size = embedded.dimensions * ITEM_BYTES
    pieces = [embedded.vectors[at : at + size] for at in range(0, len(embedded.vectors), size)]
    if encoding_format == "base64":
        return [base64.b64encode(piece).decode() for piece in pieces]
    return [numbers(piece) for piece in pieces]


def numbers(floats: bytes) -> list[float]:
    """32-bit floats as numbers whose text is as short as it can be."""
    return [float(f"{number:.{DIGITS}g}") for number in array("f", floats)]

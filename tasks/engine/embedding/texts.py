"""One request for vectors or scores inside the engine: its rows, its vectors, and where it ends."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tasks.errors import GenerationError
from tasks.messages.embedding import Embed, Embedded, Rerank
from tasks.messages.engine import Failed, Finished, Started, Submit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tasks.engine.embedding.embedder import Row, TextModel
    from tasks.messages.answer import FinishReason
    from tasks.messages.engine import Event, Work

#: A vector of zeros stays one.
SMALLEST_LENGTH = 1e-12


@dataclass(slots=True, eq=False, kw_only=True)
class Texts:
    """A tokenised request. ``pending`` are the places of rows that have no vector yet, the shortest first."""

    uid: int
    work: Embed | Rerank
    rows: list[Row]
    dimensions: int
    normalised: bool
    revision: str
    pending: list[int] = field(init=False)
    vectors: list[bytes] = field(init=False)
    started: bool = False

    def __post_init__(self) -> None:
        self.pending = sorted(range(len(self.rows)), key=self.length)
        self.vectors = [b""] * len(self.rows)

    @property
    def task_id(self) -> str:
        """The request's name on the wire."""
        return self.work.task_id

    @property
    def prompt_tokens(self) -> int:
        """The tokens of all inputs."""
        return sum(len(row.ids) for row in self.rows)

    def length(self, place: int) -> int:
        """The length of a row, in tokens."""
        return len(self.rows[place].ids)

    def named(self, place: int) -> str:
        """The field that a row was made of, as errors name it."""
        return f"{'input' if isinstance(self.work, Embed) else 'documents'}[{place}]"

    def start(self) -> Event:
        """Announce the request, once."""
        self.started = True
        warnings = tuple(row.warning for row in self.rows if row.warning)
        return Started(self.task_id, self.prompt_tokens, 0, "", revision=self.revision, warnings=warnings)

    def take(self, place: int, vector: NDArray[np.float32]) -> None:
        """Note a row's vector, shortened to the requested dimensions.

        Raises:
            GenerationError: it has numbers that are none.
        """
        if not np.isfinite(vector).all():
            raise GenerationError(
                f"{self.named(place)}: the model computed numbers that are not finite: its weights are damaged; fetch them again"
            )
        kept = vector[: self.dimensions]
        if self.normalised and len(kept) < len(vector):
            kept = kept / max(float(np.linalg.norm(kept)), SMALLEST_LENGTH)
        self.vectors[place] = kept.astype("<f4").tobytes()

    def put_back(self, place: int) -> None:
        """A row is pending again."""
        insort(self.pending, place, key=self.length)

    def finish(self) -> Event:
        """The event of its end, once every row has a vector."""
        return Embedded(self.task_id, self.prompt_tokens, self.dimensions, b"".join(self.vectors))

    def abort(self, reason: FinishReason) -> Event:
        """The event of an end without vectors."""
        return Finished(self.task_id, reason, self.prompt_tokens, 0, 0)

    def fail(self, code: str, message: str) -> Event:
        """The event of an end by an error."""
        return Failed(self.task_id, code, message)


def prepare_texts(uid: int, work: Work, model: TextModel) -> Texts:
    """A request with its inputs tokenised.

    Raises:
        InvalidRequest: the model cannot take one of them, or is made for other work.
    """
    rows = model.prepare(work)
    assert not isinstance(work, Submit)
    return Texts(
        uid=uid,
        work=work,
        rows=rows,
        dimensions=(work.dimensions if isinstance(work, Embed) else None) or model.dimensions,
        normalised=model.normalised,
        revision=model.facts.revision,
    )

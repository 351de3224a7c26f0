"""The interface between the embedding loop and a model: an embedder, real or fake, or a cross-encoder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tasks.errors import InvalidRequest
from tasks.messages.embedding import Embed, Rerank

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from tasks.engine.generation.runner import Facts, Memory
    from tasks.messages.engine import Work


@dataclass(slots=True, frozen=True)
class Row:
    """One input's tokens, of which the first ``prompt_tokens`` are no part of what is pooled.

    ``types`` say which of two texts a token belongs to, where the row is a pair. ``warning`` says what was left out.
    """

    ids: list[int]
    prompt_tokens: int = 0
    types: list[int] = field(default_factory=list)
    warning: str = ""


class TextModel(ABC):
    """A loaded model that makes one vector of each row. ``prepare`` runs on any thread, the rest on the stepping one.

    Args:
        facts: the facts of the model.
        dimensions: the length of its vectors.
        normalised: whether they have the length 1.
    """

    def __init__(self, facts: Facts, dimensions: int, *, normalised: bool) -> None:
        self.facts = facts
        self.dimensions = dimensions
        self.normalised = normalised

    @property
    def threads(self) -> int:
        """The number of threads that compute rows of a step apart."""
        return 1

    @abstractmethod
    def prepare(self, work: Work) -> list[Row]:
        """Return the tokens of a request, a row for each vector.

        Raises:
            tasks.errors.InvalidRequest: the model cannot take one of them, or is made for other work.
        """

    @abstractmethod
    def step_tokens(self, memory_budget_bytes: int | None) -> int:
        """Return the most tokens of a step, padding included, within this budget; never less than one text at its longest."""

    @abstractmethod
    def embed(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """One vector for each row, ``[rows, dimensions]``.

        Raises:
            tasks.engine.generation.runner.OutOfDeviceMemory: they do not fit into memory together.
        """

    @abstractmethod
    def memory(self) -> Memory | None:
        """Return the memory that MLX holds; ``None`` where there is no MLX."""


class Embedder(TextModel):
    """A model that makes vectors of texts."""

    @abstractmethod
    def rows(self, inputs: Sequence[str | tuple[int, ...]], input_type: str | None, prompt: str | None) -> list[Row]:
        """The inputs' tokens, with the prompt of their type, or this one, before each text.

        Raises:
            tasks.errors.InvalidRequest: the model cannot take one of them.
        """

    def prepare(self, work: Work) -> list[Row]:
        """The tokens of each input.

        Raises:
            InvalidRequest: the model cannot take one of them, makes shorter vectors, or is asked for something else.
        """
        if not isinstance(work, Embed):
            lacks = "ranks nothing" if isinstance(work, Rerank) else "generates nothing"
            raise InvalidRequest(f"model: it makes vectors of texts and {lacks}: use embed, or another model")
        if work.dimensions is not None and work.dimensions > self.dimensions:
            raise InvalidRequest(
                f"dimensions={work.dimensions}: the model's vectors have {self.dimensions}: ask for at most that, or leave it out"
            )
        return self.rows(work.inputs, work.input_type, work.prompt)


class Reranker(TextModel):
    """A model that scores documents for a query."""

    @abstractmethod
    def pairs(self, query: str, documents: Sequence[str]) -> list[Row]:
        """The tokens of the query with each document.

        Raises:
            tasks.errors.InvalidRequest: the query is too long.
        """

    def prepare(self, work: Work) -> list[Row]:
        """The tokens of each pair.

        Raises:
            InvalidRequest: the query is too long, or the model is asked for something else.
        """
        if not isinstance(work, Rerank):
            raise InvalidRequest(
                "model: it scores documents for a query, generates nothing and makes no vectors: use rerank, or another model"
            )
        return self.pairs(work.query, work.documents)

"""What the embedding loop needs of a model: a real one (:mod:`tasks.engine.embedding.model`) or the fake one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from tasks.engine.backend import Facts, Memory


@dataclass(slots=True, frozen=True)
class Row:
    """One input's tokens, of which the first ``prompt_tokens`` are no part of what is pooled."""

    ids: list[int]
    prompt_tokens: int = 0


class Embedder(ABC):
    """A loaded model that makes one vector of each row. ``rows`` runs on any thread, the rest on the stepping one.

    Args:
        facts: what is known of the model.
        dimensions: the length of its vectors.
        normalised: whether they have the length 1.
    """

    def __init__(self, facts: Facts, dimensions: int, *, normalised: bool) -> None:
        self.facts = facts
        self.dimensions = dimensions
        self.normalised = normalised

    @abstractmethod
    def rows(self, inputs: Sequence[str | tuple[int, ...]], input_type: str | None, prompt: str | None) -> list[Row]:
        """The inputs' tokens, with the prompt of their type, or this one, before each text.

        Raises:
            tasks.errors.InvalidRequest: the model cannot take one of them.
        """

    @abstractmethod
    def step_tokens(self, memory_budget_bytes: int | None) -> int:
        """How many tokens a step may have, padding included, within this budget; never less than one text at its longest."""

    @abstractmethod
    def embed(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """One vector for each row, ``[rows, dimensions]``.

        Raises:
            tasks.engine.backend.OutOfDeviceMemory: they do not fit into memory together.
        """

    @abstractmethod
    def memory(self) -> Memory | None:
        """What MLX holds; ``None`` where there is no MLX."""

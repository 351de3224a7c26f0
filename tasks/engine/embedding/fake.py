"""Models that compute nothing, for tests of everything else: ``fake:STEP_MS:dimensions=8`` and ``fake:STEP_MS:ranks=1``.

The first embeds: a vector is a function of the text alone. The second ranks: a score is the share of the query's words that are
in the document. A step takes ``STEP_MS`` and one row. Texts make faults: ``!crash`` ends the process, ``!hang`` stops stepping
for ever, ``!nan`` computes numbers that are none.
"""

from __future__ import annotations

import hashlib
import os
import time
from abc import abstractmethod
from typing import TYPE_CHECKING

import numpy as np

from tasks.engine.embedding.embedder import Embedder, Reranker, Row, TextModel
from tasks.engine.fake import CRASH_EXITCODE
from tasks.engine.fake_options import fake_facts, load_fake, parse_options

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from tasks.messages.engine import EngineConfig

#: The ids of words that make faults. No token that a request names has a negative id.
FAULTS = {"!crash": -1, "!hang": -2, "!nan": -3}


def fake_vector(ids: Sequence[int], dimensions: int) -> NDArray[np.float32]:
    """The vector of a text with these ids, of length 1."""
    digest = hashlib.blake2b(repr(list(ids)).encode(), digest_size=8).digest()
    vector = np.random.default_rng(list(digest)).normal(size=dimensions)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


class FakeTexts(TextModel):
    """A fake model behind the real loop. ``flush`` empties the pipe before a made-up crash."""

    def __init__(self, config: EngineConfig, flush: Callable[[], None], dimensions: int, *, normalised: bool) -> None:
        options = parse_options(config.model)
        self._weights = load_fake(config, options, flush)
        self._step_s = options.step_ms / 1000
        self._flush = flush
        super().__init__(fake_facts(config, options, len(self._weights)), dimensions, normalised=normalised)

    def step_tokens(self, memory_budget_bytes: int | None) -> int:
        """One row a step."""
        return 1

    def embed(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """Vectors, or a fault."""
        ids = {token for row in rows for token in row.ids}
        if FAULTS["!crash"] in ids:
            self._flush()
            os._exit(CRASH_EXITCODE)
        while FAULTS["!hang"] in ids:
            time.sleep(3600)
        time.sleep(self._step_s)
        vectors = np.stack([self._vector(row) for row in rows])
        return vectors * np.float32("nan") if FAULTS["!nan"] in ids else vectors

    @abstractmethod
    def _vector(self, row: Row) -> NDArray[np.float32]:
        """Return the vector of a row."""

    def memory(self) -> None:
        """Unknown."""


class FakeEmbedder(FakeTexts, Embedder):
    """Vectors of length 1."""

    def __init__(self, config: EngineConfig, flush: Callable[[], None]) -> None:
        super().__init__(config, flush, parse_options(config.model).dimensions, normalised=True)

    def rows(self, inputs: Sequence[str | tuple[int, ...]], input_type: str | None, prompt: str | None) -> list[Row]:
        """One id for each word."""
        return [Row(_ids_of(text) if isinstance(text, str) else list(text)) for text in inputs]

    def _vector(self, row: Row) -> NDArray[np.float32]:
        return fake_vector(row.ids, self.dimensions)


class FakeReranker(FakeTexts, Reranker):
    """Scores from 0 to 1."""

    def __init__(self, config: EngineConfig, flush: Callable[[], None]) -> None:
        super().__init__(config, flush, 1, normalised=False)

    def pairs(self, query: str, documents: Sequence[str]) -> list[Row]:
        """One id for each word; the query's words are of the first type."""
        asked = _ids_of(query)
        return [Row([*asked, *found], types=[0] * len(asked) + [1] * len(found)) for found in map(_ids_of, documents)]

    def _vector(self, row: Row) -> NDArray[np.float32]:
        query, document = ({token for token, kind in zip(row.ids, row.types, strict=True) if kind == n} for n in (0, 1))
        return np.array([len(query & document) / max(1, len(query))], np.float32)


def _ids_of(text: str) -> list[int]:
    return [_id_of(word) for word in text.split()]


def _id_of(word: str) -> int:
    digest = hashlib.blake2b(word.encode(), digest_size=3).digest()
    return FAULTS.get(word, len(FAULTS) + int.from_bytes(digest, "little"))

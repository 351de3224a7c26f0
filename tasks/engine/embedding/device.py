"""A model of texts on MLX: its facts, its memory, and its steps."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from tasks.engine.embedding.decoder import PIECE_TOKENS
from tasks.engine.embedding.embedder import TextModel
from tasks.engine.embedding.encoder import Encoder
from tasks.engine.embedding.host_encoder import HostEncoder
from tasks.engine.failure import first_line, ran_out_of_memory
from tasks.engine.generation.runner import Facts, Memory, OutOfDeviceMemory
from tasks.engine.model.loading import accelerator, bound_memory
from tasks.errors import ModelLoadFailed
from tasks.messages.memory import KvSize, margin_bytes
from tasks.models.kv_cache import kv_size
from tasks.models.reading import text_config, whole
from tasks.models.weights import weight_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tasks.engine.embedding.decoder import Decoder
    from tasks.engine.embedding.embedder import Row
    from tasks.engine.files.folder import ModelFolder
    from tasks.messages.engine import EngineConfig

#: Vectors of a layer that are there at the same time, by their width: hidden and intermediate ones.
HIDDEN_ARRAYS, INTERMEDIATE_ARRAYS = 8, 3


def load_encoder(folder: ModelFolder) -> Encoder:
    """The encoder in this folder.

    Raises:
        ModelLoadFailed: it is of a kind that is not supported, weights are missing, or it has an adapter.
    """
    if folder.adapter is not None:
        raise ModelLoadFailed(f"{folder.path}: an encoder takes no adapter; leave it out")
    files = weight_files(folder.path)
    if accelerator() != "cpu":
        return Encoder(folder.config, files)
    encoder = HostEncoder(folder.config, files)
    encoder.start()
    return encoder


class MlxTextModel(TextModel):
    """A model on MLX behind the embedding loop.

    Args:
        folder: its files.
        body: computes the tokens' vectors.
        blas: the library of MLX's products.
        trial: a row for the first step, which compiles kernels: not at the cost of the first request.
        normalised: whether its vectors have the length 1.
    """

    def __init__(
        self, folder: ModelFolder, body: Encoder | Decoder, blas: str, trial: Sequence[Row], *, normalised: bool
    ) -> None:
        self._body = body
        self._token_bytes = _token_bytes(folder.config, folder.context_tokens)
        longest = min(folder.context_tokens, PIECE_TOKENS) * self._token_bytes
        # An encoder keeps nothing between steps: the memory of a step with the longest text takes the place of a KV cache.
        kv = KvSize(bytes_per_row=longest) if isinstance(body, Encoder) else kv_size(folder.config) or KvSize()
        facts = Facts(
            revision=folder.revision,
            context_tokens=folder.context_tokens,
            weights_bytes=body.weights_bytes,
            kv=kv,
            accelerator=accelerator(),
            blas=blas,
            end_ids=frozenset(),
        )
        # The first step tells the vectors' length.
        super().__init__(facts, self._compute(trial).shape[-1], normalised=normalised)

    @property
    def threads(self) -> int:
        """See :attr:`TextModel.threads`."""
        return self._body.threads

    @abstractmethod
    def vectors(self, hidden: mx.array, rows: Sequence[Row]) -> mx.array:
        """One vector for each row, of its tokens' vectors ``[rows, tokens, width]``, padded behind."""

    def bound_memory(self, config: EngineConfig) -> None:
        """Bound MLX's memory to the weights and one step."""
        facts = self.facts
        bound_memory(config, margin_bytes(facts.weights_bytes, facts.kv, 0) + facts.kv.bytes_per_row)

    def step_tokens(self, memory_budget_bytes: int | None) -> int:
        """Return the number of tokens that fit beside the weights, the margin and a KV cache for as many tokens."""
        facts = self.facts
        if memory_budget_bytes is None:
            return self._body.most_tokens
        room = memory_budget_bytes - facts.weights_bytes - margin_bytes(facts.weights_bytes, facts.kv, 0)
        return min(max(room // (self._token_bytes + facts.kv.bytes_per_token), 1), self._body.most_tokens)

    def embed(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """One vector for each row.

        Raises:
            OutOfDeviceMemory: they do not fit into memory together.
        """
        try:
            return self._compute(rows)
        except (RuntimeError, MemoryError) as error:
            if ran_out_of_memory(error):
                raise OutOfDeviceMemory(first_line(error)) from error
            raise

    def memory(self) -> Memory:
        """MLX's own figures."""
        return Memory(mx.get_active_memory(), mx.get_cache_memory(), mx.get_peak_memory())

    def _compute(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        lengths = [len(row.ids) for row in rows]
        ids, types = np.zeros((2, len(rows), max(lengths)), np.int32)
        for place, row in enumerate(rows):
            ids[place, : lengths[place]] = row.ids
            types[place, : len(row.types)] = row.types
        given = mx.array(types) if types.any() else None
        return np.array(self.vectors(self._body(mx.array(ids), lengths, given), rows), np.float32)


def _token_bytes(config: dict[str, Any], context_tokens: int) -> int:
    """Return the bytes that a step takes for each of its tokens, padding included, where rows have the whole context."""
    text = text_config(config)
    hidden, heads = whole(text.get("hidden_size")) or 0, whole(text.get("num_attention_heads")) or 0
    wide = whole(text.get("intermediate_size")) or 4 * hidden
    scores = 2 * heads * min(context_tokens, PIECE_TOKENS)
    return 4 * (HIDDEN_ARRAYS * hidden + INTERMEDIATE_ARRAYS * wide + scores)

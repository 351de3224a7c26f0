"""An embedding model, loaded: its tokens, its network, its pooling, its memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import mlx.core as mx
import numpy as np

from tasks.engine.backend import Facts, Memory, OutOfDeviceMemory
from tasks.engine.embedding.decoder import PIECE_TOKENS, Decoder
from tasks.engine.embedding.embedder import Embedder
from tasks.engine.embedding.encoder import Encoder
from tasks.engine.embedding.pooling import pool
from tasks.engine.embedding.tokens import TextTokens
from tasks.engine.failure import first_line, ran_out_of_memory
from tasks.engine.model.loading import accelerator, bound_memory, clear_errors
from tasks.errors import ModelLoadFailed
from tasks.messages.memory import KvSize, margin_bytes
from tasks.models.embedding import ENCODERS
from tasks.models.kv_cache import kv_size
from tasks.models.reading import text_config, whole
from tasks.models.weights import weight_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tasks.engine.embedding.embedder import Row
    from tasks.engine.files.folder import ModelFolder
    from tasks.engine.model.loading import Progress
    from tasks.messages.engine import EngineConfig
    from tasks.models.embedding import EmbeddingRecipe

#: More tokens than this in a step use a device no better; a CPU's caches lose what one layer has for the next.
MOST_STEP_TOKENS, MOST_STEP_TOKENS_ON_CPU = 8192, 256
#: Vectors of a layer that are there at the same time, by their width: hidden and intermediate ones.
HIDDEN_ARRAYS, INTERMEDIATE_ARRAYS = 8, 3
SMALLEST_LENGTH = 1e-12


def load_embedder(config: EngineConfig, progress: Progress, blas: str, folder: ModelFolder) -> MlxEmbedder:
    """Load the embedding model in this folder.

    Raises:
        ModelLoadFailed: it is broken, or of a kind that is not supported.
        OutOfMemory: loading ran out of memory.
    """
    recipe = folder.recipe
    assert recipe is not None
    with clear_errors(folder):
        tokens = TextTokens(folder.path, recipe, folder.context_tokens)
        is_encoder = folder.config["model_type"] in ENCODERS
        if is_encoder and folder.adapter is not None:
            raise ModelLoadFailed(f"{folder.path}: an encoder takes no adapter; leave it out")
        if is_encoder:
            body: Encoder | Decoder = Encoder(folder.config, weight_files(folder.path), on_cpu=accelerator() == "cpu")
        else:
            body = Decoder(folder, config)
        progress(0.9, "trying it out")
        embedder = MlxEmbedder(folder, recipe, tokens, body, blas)
        facts = embedder.facts
        bound_memory(config, margin_bytes(facts.weights_bytes, facts.kv, 0) + facts.kv.bytes_per_row)
        return embedder


class MlxEmbedder(Embedder):
    """A model on MLX behind the embedding loop."""

    def __init__(
        self, folder: ModelFolder, recipe: EmbeddingRecipe, tokens: TextTokens, body: Encoder | Decoder, blas: str
    ) -> None:
        self._recipe = recipe
        self._tokens = tokens
        self._body = body
        self._dense = [_load_dense(folder, layer.folder) for layer in recipe.dense]
        self._token_bytes = _token_bytes(folder.config, folder.context_tokens)
        context_tokens = folder.context_tokens
        longest = min(context_tokens, PIECE_TOKENS) * self._token_bytes
        # An encoder keeps nothing between steps: in the place of a KV cache is what a step takes with the longest text.
        kv = KvSize(bytes_per_row=longest) if isinstance(body, Encoder) else kv_size(folder.config) or KvSize()
        facts = Facts(
            revision=folder.revision,
            context_tokens=context_tokens,
            weights_bytes=body.weights_bytes,
            kv=kv,
            accelerator=accelerator(),
            blas=blas,
            end_ids=frozenset(),
        )
        # The first step compiles kernels, too: not at the cost of the first request. It tells the vectors' length.
        vector = self._vectors(tokens.rows(["a"], None, ""))
        super().__init__(facts, vector.shape[-1], normalised=recipe.normalise)

    def rows(self, inputs: Sequence[str | tuple[int, ...]], input_type: str | None, prompt: str | None) -> list[Row]:
        """See :meth:`TextTokens.rows`."""
        return self._tokens.rows(inputs, input_type, prompt)

    def step_tokens(self, memory_budget_bytes: int | None) -> int:
        """What fits beside the weights, the margin and a KV cache for as many tokens."""
        facts = self.facts
        most = MOST_STEP_TOKENS_ON_CPU if facts.accelerator == "cpu" else MOST_STEP_TOKENS
        if memory_budget_bytes is None:
            return most
        room = memory_budget_bytes - facts.weights_bytes - margin_bytes(facts.weights_bytes, facts.kv, 0)
        return min(max(room // (self._token_bytes + facts.kv.bytes_per_token), 1), most)

    def embed(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """One vector for each row, by the model's recipe.

        Raises:
            OutOfDeviceMemory: they do not fit into memory together.
        """
        try:
            return self._vectors(rows)
        except (RuntimeError, MemoryError) as error:
            if ran_out_of_memory(error):
                raise OutOfDeviceMemory(first_line(error)) from error
            raise

    def memory(self) -> Memory:
        """MLX's own figures."""
        return Memory(mx.get_active_memory(), mx.get_cache_memory(), mx.get_peak_memory())

    def _vectors(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        lengths = [len(row.ids) for row in rows]
        ids = np.zeros((len(rows), max(lengths)), np.int32)
        for place, row in enumerate(rows):
            ids[place, : lengths[place]] = row.ids
        pooled = pool(self._body(mx.array(ids), lengths), rows, self._recipe.pooling)
        for layer, (weight, bias) in zip(self._recipe.dense, self._dense, strict=True):
            pooled = pooled @ weight.T + bias
            pooled = mx.tanh(pooled) if layer.activation == "Tanh" else pooled
        if self._recipe.normalise:
            length = mx.sqrt((pooled * pooled).sum(axis=-1, keepdims=True))
            pooled = pooled / mx.maximum(length, SMALLEST_LENGTH)
        return np.array(pooled, np.float32)


def _token_bytes(config: dict[str, Any], context_tokens: int) -> int:
    """What a step takes for each of its tokens, padding included, where rows have the whole context."""
    text = text_config(config)
    hidden, heads = whole(text.get("hidden_size")) or 0, whole(text.get("num_attention_heads")) or 0
    wide = whole(text.get("intermediate_size")) or 4 * hidden
    scores = 2 * heads * min(context_tokens, PIECE_TOKENS)
    return 4 * (HIDDEN_ARRAYS * hidden + INTERMEDIATE_ARRAYS * wide + scores)


def _load_dense(folder: ModelFolder, name: str) -> tuple[mx.array, mx.array]:
    """Weight and bias of a dense layer, which may have no bias.

    Raises:
        ModelLoadFailed: they are not there.
    """
    path = folder.path / name / "model.safetensors"
    if not path.is_file():
        raise ModelLoadFailed(f"{path}: is missing: the dense layer's weights have to be in a safetensors file")
    weights = cast("dict[str, mx.array]", mx.load(str(path)))
    if "linear.weight" not in weights:
        raise ModelLoadFailed(f"{path}: has no linear.weight")
    weight = weights["linear.weight"].astype(mx.float32)
    bias = weights.get("linear.bias")
    return weight, mx.zeros(weight.shape[0]) if bias is None else bias.astype(mx.float32)

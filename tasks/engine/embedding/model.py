"""An embedding model, loaded: its tokens, its network, its pooling."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import mlx.core as mx

from tasks.engine.embedding.decoder import Decoder
from tasks.engine.embedding.device import MlxTextModel, load_encoder
from tasks.engine.embedding.embedder import Embedder
from tasks.engine.embedding.pooling import pool
from tasks.engine.embedding.texts import SMALLEST_LENGTH
from tasks.engine.embedding.tokens import TextTokens
from tasks.engine.model.loading import clear_errors
from tasks.errors import ModelLoadFailed
from tasks.models.embedding import ENCODERS, EmbeddingRecipe
from tasks.models.reading import ModelFilesUnreadable
from tasks.models.weights import read_tensors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.engine.embedding.embedder import Row
    from tasks.engine.embedding.encoder import Encoder
    from tasks.engine.files.folder import ModelFolder
    from tasks.engine.model.loading import Progress
    from tasks.messages.engine import EngineConfig


def load_embedder(config: EngineConfig, progress: Progress, blas: str, folder: ModelFolder) -> MlxEmbedder:
    """Load the embedding model in this folder.

    Raises:
        ModelLoadFailed: it is broken, or of a kind that is not supported.
        OutOfMemory: loading ran out of memory.
    """
    recipe = folder.recipe
    assert isinstance(recipe, EmbeddingRecipe)
    with clear_errors(folder):
        is_encoder = folder.config["model_type"] in ENCODERS
        body = load_encoder(folder) if is_encoder else Decoder(folder, config)
        tokens = TextTokens(folder.path, recipe, folder.context_tokens, body.known_tokens)
        progress(0.9, "trying it out")
        embedder = MlxEmbedder(folder, recipe, tokens, body, blas)
        embedder.bound_memory(config)
        return embedder


class MlxEmbedder(MlxTextModel, Embedder):
    """An embedding model on MLX."""

    def __init__(
        self, folder: ModelFolder, recipe: EmbeddingRecipe, tokens: TextTokens, body: Encoder | Decoder, blas: str
    ) -> None:
        self._recipe = recipe
        self._tokens = tokens
        self._dense = [_load_dense(folder, layer.folder) for layer in recipe.dense]
        super().__init__(folder, body, blas, tokens.rows(["a"], None, ""), normalised=recipe.normalise)

    def rows(self, inputs: Sequence[str | tuple[int, ...]], input_type: str | None, prompt: str | None) -> list[Row]:
        """See :meth:`TextTokens.rows`."""
        return self._tokens.rows(inputs, input_type, prompt)

    def vectors(self, hidden: mx.array, rows: Sequence[Row]) -> mx.array:
        """One vector for each row, by the model's recipe."""
        pooled = pool(hidden, rows, self._recipe.pooling)
        for layer, (weight, bias) in zip(self._recipe.dense, self._dense, strict=True):
            pooled = pooled @ weight.T + bias
            pooled = mx.tanh(pooled) if layer.activation == "Tanh" else pooled
        if self._recipe.normalise:
            length = mx.sqrt((pooled * pooled).sum(axis=-1, keepdims=True))
            pooled = pooled / mx.maximum(length, SMALLEST_LENGTH)
        return pooled


def _load_dense(folder: ModelFolder, name: str) -> tuple[mx.array, mx.array]:
    """Weight and bias of a dense layer, which may have no bias.

    Raises:
        ModelLoadFailed: they are not there, or not whole.
    """
    path = folder.path / name / "model.safetensors"
    if not path.is_file():
        raise ModelLoadFailed(f"{path}: is missing: the dense layer's weights have to be in a safetensors file")
    try:
        read_tensors(path)
    except ModelFilesUnreadable as error:
        raise ModelLoadFailed(str(error)) from None
    weights = cast("dict[str, mx.array]", mx.load(str(path)))
    if "linear.weight" not in weights:
        raise ModelLoadFailed(f"{path}: has no linear.weight")
    weight = weights["linear.weight"].astype(mx.float32)
    bias = weights.get("linear.bias")
    return weight, mx.zeros(weight.shape[0]) if bias is None else bias.astype(mx.float32)

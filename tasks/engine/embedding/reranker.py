"""A cross-encoder, loaded: its tokens, its encoder, and the head that makes one score of a query and a document."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import mlx.core as mx

from tasks.engine.embedding.device import MlxTextModel, load_encoder
from tasks.engine.embedding.embedder import Reranker
from tasks.engine.embedding.pairs import PairTokens
from tasks.engine.model.loading import clear_errors
from tasks.errors import ModelLoadFailed
from tasks.models.reranking import RerankingRecipe
from tasks.models.weights import weight_files

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.engine.embedding.embedder import Row
    from tasks.engine.embedding.encoder import Encoder
    from tasks.engine.files.folder import ModelFolder
    from tasks.engine.model.loading import Progress
    from tasks.messages.engine import EngineConfig

#: The dense layer, and the one behind it that gives the logit: BERT's names, and those of RoBERTa's family.
_BERT_LAYERS, _ROBERTA_LAYERS = ("pooler.dense", "classifier"), ("classifier.dense", "classifier.out_proj")


def load_reranker(config: EngineConfig, progress: Progress, blas: str, folder: ModelFolder) -> MlxReranker:
    """Load the cross-encoder in this folder.

    Raises:
        ModelLoadFailed: it is broken, or of a kind that is not supported.
        OutOfMemory: loading ran out of memory.
    """
    recipe = folder.recipe
    assert isinstance(recipe, RerankingRecipe)
    with clear_errors(folder):
        body, head = load_encoder(folder), Head(folder)
        tokens = PairTokens(folder.path, folder.context_tokens, body.known_tokens)
        progress(0.9, "trying it out")
        reranker = MlxReranker(folder, recipe, tokens, body, head, blas)
        reranker.bound_memory(config)
        return reranker


class Head:
    """A dense layer with tanh on the first token's vector, and one to the logit.

    Raises:
        ModelLoadFailed: weights are missing, or are those of several labels.
    """

    def __init__(self, folder: ModelFolder) -> None:
        kind = str(folder.config["model_type"])
        layers = _BERT_LAYERS if kind == "bert" else _ROBERTA_LAYERS
        stored: dict[str, mx.array] = {}
        for path in weight_files(folder.path):
            for name, array in cast("dict[str, mx.array]", mx.load(str(path))).items():
                stored[name.removeprefix("bert.")] = array
        names = [f"{layer}.{part}" for layer in layers for part in ("weight", "bias")]
        missing = [name for name in names if name not in stored]
        if missing:
            raise ModelLoadFailed(
                f"{folder.path}: the weights lack {missing[0]}: they are not those of a cross-encoder"
            )
        self._dense, self._dense_bias, self._out, self._out_bias = (stored[name].astype(mx.float32) for name in names)
        if self._out.shape[0] != 1:
            raise ModelLoadFailed(
                f"{folder.path}: {names[2]} has {self._out.shape[0]} labels, and config.json says one: take a cross-encoder"
            )
        mx.eval(self._dense, self._dense_bias, self._out, self._out_bias)

    def __call__(self, first: mx.array) -> mx.array:
        """The logits, ``[rows, 1]``, of the first tokens' vectors, ``[rows, width]``."""
        return mx.tanh(first @ self._dense.T + self._dense_bias) @ self._out.T + self._out_bias


class MlxReranker(MlxTextModel, Reranker):
    """A cross-encoder on MLX. Its vectors are one number long: the score."""

    def __init__(
        self,
        folder: ModelFolder,
        recipe: RerankingRecipe,
        tokens: PairTokens,
        body: Encoder,
        head: Head,
        blas: str,
    ) -> None:
        self._recipe = recipe
        self._tokens = tokens
        self._head = head
        super().__init__(folder, body, blas, tokens.rows("a", ["a"]), normalised=False)

    def pairs(self, query: str, documents: Sequence[str]) -> list[Row]:
        """The tokens of the query with each document.

        Raises:
            InvalidRequest: the query is too long.
        """
        return self._tokens.rows(query, documents)

    def vectors(self, hidden: mx.array, _rows: Sequence[Row]) -> mx.array:
        """The scores."""
        logits = self._head(hidden[:, 0])
        return mx.sigmoid(logits) if self._recipe.activation == "Sigmoid" else logits

"""A language model of mlx-lm as an encoder of texts: the vectors of its last layer, before they become logits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx.utils import tree_reduce
from mlx_lm import utils
from mlx_lm.models.cache import make_prompt_cache

from tasks.engine.embedding.encoder import MOST_STEP_TOKENS
from tasks.engine.model.corrections.architectures import correct
from tasks.engine.model.loading import accelerator, load_weights
from tasks.errors import ModelLoadFailed
from tasks.models.reading import text_config, whole

if TYPE_CHECKING:
    from tasks.engine.files.folder import ModelFolder
    from tasks.messages.engine import EngineConfig

#: The tokens of a piece: a longer text is computed in pieces, each with the KV cache of those before.
PIECE_TOKENS = 2048
#: In a longer step a CPU's caches lose what one layer has for the next.
MOST_STEP_TOKENS_ON_CPU = 256


class Decoder:
    """A model of mlx-lm. Padding stands behind a row's tokens, and no token sees what is behind it.

    Its bounds of a step are named as those of :class:`tasks.engine.embedding.encoder.Encoder`.

    Args:
        folder: the model's files.
        config: which model, and its bounds.
        piece_tokens: a longer text is computed in pieces.

    Raises:
        ModelLoadFailed: mlx-lm gives no access to its last layer, or computes it with another attention.
    """

    threads = 1

    def __init__(self, folder: ModelFolder, config: EngineConfig, piece_tokens: int = PIECE_TOKENS) -> None:
        self._piece_tokens = piece_tokens
        self.most_tokens = MOST_STEP_TOKENS_ON_CPU if accelerator() == "cpu" else MOST_STEP_TOKENS
        described = text_config(folder.config)
        #: How many tokens it has vectors for; ``None`` where its configuration leaves that to mlx-lm.
        self.known_tokens = whole(described.get("vocab_size"))
        if described.get("use_bidirectional_attention") or described.get("is_causal") is False:
            # mlx-lm would compute it with a causal mask, without a word.
            raise ModelLoadFailed(
                f"{folder.path}: its config.json asks for attention to later tokens, which mlx-lm does not compute: take a model "
                "with causal attention, or an encoder"
            )
        self._model = load_weights(folder, config, get_model_classes=_without_head)
        self._body: Any = getattr(self._model, "model", None)
        if not callable(self._body) or correct(self._model):
            kind = getattr(self._model, "model_type", "")
            raise ModelLoadFailed(f"{folder.path}: a model of type {kind!r} is not supported for embeddings")

    @property
    def weights_bytes(self) -> int:
        """The bytes of the weights in memory."""
        return int(tree_reduce(lambda total, array: total + array.nbytes, self._model.parameters(), 0))

    def __call__(self, ids: mx.array, _lengths: list[int], _types: mx.array | None = None) -> mx.array:
        """Return the tokens' vectors, ``[rows, tokens, width]``; values behind a row's length mean nothing."""
        if ids.shape[1] <= self._piece_tokens:
            whole: mx.array = self._body(ids).astype(mx.float32)
            return whole
        cache = make_prompt_cache(self._model)
        pieces = []
        for start in range(0, ids.shape[1], self._piece_tokens):
            piece = self._body(ids[:, start : start + self._piece_tokens], cache=cache).astype(mx.float32)
            mx.eval(piece, [layer.state for layer in cache])
            pieces.append(piece)
        return mx.concatenate(pieces, axis=1)


def _without_head(config: dict[str, Any]) -> tuple[type, type]:
    """mlx-lm's classes for a configuration, for weights with or without ``model.`` before their names, and without a head.

    Embedding models are often saved as the body alone.
    """
    classes: tuple[Any, Any] = utils._get_classes(config)
    found, arguments = classes

    class Body(found):  # type: ignore[misc, valid-type]
        def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
            if not any(name.startswith(("model.", "language_model.")) for name in weights):
                weights = {f"model.{name}": array for name, array in weights.items()}
            self.pop("lm_head", None)
            weights = {name: array for name, array in weights.items() if not name.startswith("lm_head.")}
            return super().sanitize(weights) if hasattr(found, "sanitize") else weights

    return Body, arguments

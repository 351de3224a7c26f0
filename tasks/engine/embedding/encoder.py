"""BERT, RoBERTa and XLM-R on MLX, in single precision: the encoders of most embedding models.

Their layers are the same. They differ in the number of the first position, and in the names of their weights' beginnings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import mlx.core as mx
from mlx import nn

from tasks.errors import ModelLoadFailed
from tasks.models.embedding import encoder_positions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

#: The prefixes of the names where the encoder was saved as a part of a larger model.
_BEGINNINGS = ("bert.", "roberta.", "model.")
#: Names of a layer norm's weights in checkpoints that were converted from TensorFlow.
_OLD_NAMES = {"gamma": "weight", "beta": "bias"}
#: ``gelu`` is the exact one.
_ACTIVATIONS: dict[str, Callable[[mx.array], mx.array]] = {
    "gelu": nn.gelu,
    "gelu_new": nn.gelu_approx,
    "gelu_pytorch_tanh": nn.gelu_approx,
    "relu": nn.relu,
}


#: More tokens than this in a step use a device no better.
MOST_STEP_TOKENS = 8192


class Encoder:
    """A BERT of any family. A step has at most ``most_tokens``, and is quickest with a multiple of ``threads`` rows.

    Args:
        config: ``config.json``.
        files: the weights.

    Raises:
        ModelLoadFailed: it is of a kind that is not supported, or weights are missing.
    """

    threads = 1
    most_tokens = MOST_STEP_TOKENS

    def __init__(self, config: dict[str, Any], files: Iterable[Path]) -> None:
        positions = encoder_positions(config)
        activation = str(config.get("hidden_act", "gelu"))
        kind = config.get("position_embedding_type") or "absolute"
        if positions is None or activation not in _ACTIVATIONS or kind != "absolute":
            raise ModelLoadFailed(
                f"an encoder of type {config.get('model_type')!r} with hidden_act {activation!r} and positions {kind!r} is not "
                f"supported; supported are absolute positions and {', '.join(_ACTIVATIONS)}"
            )
        self.activation = activation
        self._first_position = positions[1]
        self._heads = int(config["num_attention_heads"])
        self._eps = float(config.get("layer_norm_eps", 1e-12))
        self._layers = int(config["num_hidden_layers"])
        self._weights = _load(files)
        self._check_weights()

    @property
    def weights_bytes(self) -> int:
        """The bytes of the weights in memory."""
        return sum(array.nbytes for array in self._weights.values())

    @property
    def known_tokens(self) -> int:
        """The number of tokens that it has vectors for."""
        return int(self._table("word").shape[0])

    def __call__(self, ids: mx.array, lengths: list[int], types: mx.array | None = None) -> mx.array:
        """Return the tokens' vectors, ``[rows, tokens, width]``; values behind a row's length mean nothing.

        ``types`` say which of two texts each token belongs to. A RoBERTa has learned no difference.
        """
        rows, tokens = ids.shape
        mask = None
        if min(lengths) < tokens:
            mask = (mx.arange(tokens)[None] < mx.array(lengths)[:, None])[:, None, None]
        positions = mx.arange(self._first_position, self._first_position + tokens)
        table = self._table("token_type")
        typed = table[0] if types is None or len(table) == 1 else table[types]
        hidden = self._table("word")[ids] + self._table("position")[positions] + typed
        hidden = self._norm("embeddings.LayerNorm", hidden.reshape(rows * tokens, -1))
        for number in range(self._layers):
            hidden = self._layer(f"encoder.layer.{number}", hidden, rows, mask)
        return hidden.reshape(rows, tokens, -1)

    def _layer(self, name: str, hidden: mx.array, rows: int, mask: mx.array | None) -> mx.array:
        attended = self._attention(f"{name}.attention.self", hidden, rows, mask)
        attended = self._linear(f"{name}.attention.output.dense", attended)
        hidden = self._norm(f"{name}.attention.output.LayerNorm", hidden + attended)
        wide = _ACTIVATIONS[self.activation](self._linear(f"{name}.intermediate.dense", hidden))
        return self._norm(f"{name}.output.LayerNorm", hidden + self._linear(f"{name}.output.dense", wide))

    def _attention(self, name: str, hidden: mx.array, rows: int, mask: mx.array | None) -> mx.array:
        queries, keys, values = (
            self._linear(f"{name}.{part}", hidden).reshape(rows, -1, self._heads, hidden.shape[-1] // self._heads)
            for part in ("query", "key", "value")
        )
        rows_first = [part.transpose(0, 2, 1, 3) for part in (queries, keys, values)]
        attended = _attention(rows_first[0], rows_first[1], rows_first[2], mask)
        return attended.transpose(0, 2, 1, 3).reshape(hidden.shape)

    def _linear(self, name: str, hidden: mx.array) -> mx.array:
        return mx.addmm(self._weights[f"{name}.bias"], hidden, self._weights[f"{name}.weight"].T)

    def _norm(self, name: str, hidden: mx.array) -> mx.array:
        return mx.fast.layer_norm(hidden, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"], self._eps)

    def _table(self, kind: str) -> mx.array:
        return self._weights[f"embeddings.{kind}_embeddings.weight"]

    def _check_weights(self) -> None:
        """Refuse weights with which a forward pass would fail.

        Raises:
            ModelLoadFailed: weights are missing.
        """
        norms = ["embeddings.LayerNorm"]
        linears: list[str] = []
        for number in range(self._layers):
            name = f"encoder.layer.{number}"
            norms += [f"{name}.attention.output.LayerNorm", f"{name}.output.LayerNorm"]
            linears += [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
            linears += [f"{name}.{part}.dense" for part in ("attention.output", "intermediate", "output")]
        needed = [f"embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type")]
        needed += [f"{name}.{part}" for name in (*norms, *linears) for part in ("weight", "bias")]
        missing = [name for name in needed if name not in self._weights]
        if missing:
            raise ModelLoadFailed(
                f"the weights lack {missing[0]}{f' and {len(missing) - 1} more' if missing[1:] else ''}: they are not those of "
                "the encoder that config.json describes"
            )


def _attention(queries: mx.array, keys: mx.array, values: mx.array, mask: mx.array | None) -> mx.array:
    scale = queries.shape[-1] ** -0.5
    return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=scale, mask=mask)


def _load(files: Iterable[Path]) -> dict[str, mx.array]:
    """The encoder's weights by the names that BERT gave them, in single precision."""
    found: dict[str, mx.array] = {}
    for path in files:
        for full, array in cast("dict[str, mx.array]", mx.load(str(path))).items():
            name = full
            for beginning in _BEGINNINGS:
                name = name.removeprefix(beginning)
            head, _, last = name.rpartition(".")
            if head.startswith(("embeddings.", "encoder.")):
                found[f"{head}.{_OLD_NAMES.get(last, last)}"] = array.astype(mx.float32)
    mx.eval(found)
    return found

"""Logits after a few tokens of a prompt.

A model of mlx-lm returns logits after each token of a call. Its last layer, with one output for each token of the vocabulary, is
often a quarter of the model, and a prompt needs it after its last token alone. Here that layer computes only what is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache

from tasks.engine.model.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlx.nn.layers.base import Module


class Head:
    """A model, and the layer that computes its logits.

    Args:
        model: a model of mlx-lm. Layers as wide as its logits get a class that can choose, in place.
    """

    def __init__(self, model: Module) -> None:
        self._model = model
        vocabulary_tokens = Reference(model).vocabulary_tokens
        self._layers = [module for _, module in model.named_modules() if _width(module) == vocabulary_tokens]
        for layer in self._layers:
            if not isinstance(layer, _Choosing):
                layer.__class__ = _choosing(type(layer))
        #: Whether logits after one token cost one row of the layer, however many tokens the call has.
        self.chooses = self._tells() == (1, 1, vocabulary_tokens)

    def compute(self, tokens: mx.array, caches: list[Any], places: Sequence[tuple[int, int]]) -> mx.array | None:
        """Call the model; returns logits, ``[places, vocabulary]``, or ``None`` without places. Waits for nothing.

        Args:
            tokens: ``[rows, count]``.
            caches: one for each layer of the model.
            places: rows and columns of the tokens after which logits are asked for.
        """
        if not places:
            self._choose(tokens, caches, None)
            return None
        choice = _Choice.of(places)
        if self.chooses:
            return self._choose(tokens, caches, choice)[:, 0]
        logits: mx.array = self._model(tokens, cache=caches)
        return logits[choice.rows, choice.columns]

    def _choose(self, tokens: mx.array, caches: list[Any], choice: _Choice | None) -> mx.array:
        """Call the model; in the middle of the call its caches may have another one made, with a choice of its own."""
        before = [layer._choice for layer in self._layers]
        for layer in self._layers:
            layer._choice = choice
        try:
            logits: mx.array = self._model(tokens, cache=caches)
        finally:
            for layer, chosen in zip(self._layers, before, strict=True):
                layer._choice = chosen
        return logits

    def _tells(self) -> tuple[int, ...]:
        """The shape of the logits after the first of two tokens; nothing is computed for it."""
        if not self._layers:
            return ()
        return self._choose(mx.zeros((1, 2), mx.int32), make_prompt_cache(self._model), _Choice.of([(0, 0)])).shape


@dataclass(slots=True, frozen=True)
class _Choice:
    """Rows and columns of the hidden states that logits are computed from."""

    rows: mx.array
    columns: mx.array

    @classmethod
    def of(cls, places: Sequence[tuple[int, int]]) -> _Choice:
        rows, columns = zip(*places, strict=True)
        return cls(mx.array(rows), mx.array(columns))


class _Choosing:
    """A layer that takes what is chosen, ``[places, 1, width]``, for all hidden states, ``[rows, count, width]``."""

    _choice: _Choice | None = None

    def _chosen(self, x: mx.array) -> mx.array:
        if self._choice is None:
            return x
        return x[self._choice.rows, self._choice.columns][:, None]


class _ChoosingLinear(_Choosing):
    def __call__(self, x: mx.array) -> mx.array:
        return cast("mx.array", cast("Any", super()).__call__(self._chosen(x)))


class _ChoosingEmbedding(_Choosing):
    def as_linear(self, x: mx.array) -> mx.array:
        return cast("mx.array", cast("Any", super()).as_linear(self._chosen(x)))


def _choosing(layer: type[Module]) -> type[Module]:
    """A class of such layers that can choose."""
    base = _ChoosingEmbedding if hasattr(layer, "as_linear") else _ChoosingLinear
    return cast("type[Module]", type(layer.__name__, (base, layer), {}))


def _width(module: Module) -> int:
    """Return the number of outputs of a layer; 0 for other modules."""
    weight = getattr(module, "weight", None)
    return int(weight.shape[0]) if isinstance(weight, mx.array) and weight.ndim == 2 else 0

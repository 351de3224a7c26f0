"""Logits after a few tokens of a prompt.

A model of mlx-lm returns logits after each token of a call. Its last layer, with one output for each token of the vocabulary, is
often a quarter of the model, and a prompt needs it after its last token alone. Here that layer computes only what is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import mlx.core as mx
import numpy as np
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

    @property
    def model(self) -> Module:
        """The model."""
        return self._model

    def compute(self, tokens: Any, caches: list[Any], places: Sequence[tuple[int, int]]) -> mx.array | None:
        """Call the model; returns logits, ``[places, vocabulary]``, or ``None`` without places. Waits for nothing.

        Args:
            tokens: ``[rows, count]``, of MLX; or of numpy, which computes at once, where the layer can choose.
            caches: one for each layer of the model.
            places: rows and columns of the tokens after which logits are asked for.
        """
        numbers = np if isinstance(tokens, np.ndarray) else mx
        if not places:
            # MLX computes no logits that nobody reads, and numpy all that it is asked for.
            self._choose(tokens, caches, _Choice.of([(0, 0)], np) if numbers is np else None)
            return None
        choice = _Choice.of(places, numbers)
        if self.chooses:
            chosen = self._choose(tokens, caches, choice)[:, 0]
            return mx.array(chosen) if numbers is np else cast("mx.array", chosen)
        logits: mx.array = self._model(tokens, cache=caches)
        return logits[choice.rows, choice.columns]

    def _choose(self, tokens: Any, caches: list[Any], choice: _Choice | None) -> Any:
        """Call the model; in the middle of the call its caches may have another one made, with a choice of its own."""
        before = [layer._choice for layer in self._layers]
        for layer in self._layers:
            layer._choice = choice
        try:
            logits = self._model(tokens, cache=caches)
        finally:
            for layer, chosen in zip(self._layers, before, strict=True):
                layer._choice = chosen
        return logits

    def _tells(self) -> tuple[int, ...]:
        """The shape of the logits after the first of two tokens; nothing is computed for it."""
        if not self._layers:
            return ()
        choice = _Choice.of([(0, 0)], mx)
        shape: tuple[int, ...] = self._choose(mx.zeros((1, 2), mx.int32), make_prompt_cache(self._model), choice).shape
        return shape


@dataclass(slots=True, frozen=True)
class _Choice:
    """Rows and columns of the hidden states that logits are computed from, as arrays of their kind."""

    rows: Any
    columns: Any

    @classmethod
    def of(cls, places: Sequence[tuple[int, int]], numbers: Any) -> _Choice:
        rows, columns = ([place[axis] for place in places] for axis in range(2))
        return cls(numbers.array(rows, numbers.int32), numbers.array(columns, numbers.int32))


class _Choosing:
    """A layer that takes what is chosen, ``[places, 1, width]``, for all hidden states, ``[rows, count, width]``."""

    _choice: _Choice | None = None

    def _chosen(self, x: Any) -> Any:
        if self._choice is None:
            return x
        return x[self._choice.rows, self._choice.columns][:, None]


class _ChoosingLinear(_Choosing):
    def __call__(self, x: Any) -> Any:
        return cast("Any", super()).__call__(self._chosen(x))


class _ChoosingEmbedding(_Choosing):
    def as_linear(self, x: Any) -> Any:
        return cast("Any", super()).as_linear(self._chosen(x))


def _choosing(layer: type[Module]) -> type[Module]:
    """A class of such layers that can choose."""
    base = _ChoosingEmbedding if hasattr(layer, "as_linear") else _ChoosingLinear
    return cast("type[Module]", type(layer.__name__, (base, layer), {}))


def _width(module: Module) -> int:
    """Return the number of outputs of a layer; 0 for other modules."""
    weight = getattr(module, "weight", None)
    return int(weight.shape[0]) if isinstance(weight, mx.array) and weight.ndim == 2 else 0

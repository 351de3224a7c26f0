"""Logits after a few tokens of a call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlx.core as mx
import pytest
from mlx import nn
from mlx_lm.models.cache import KVCache, make_prompt_cache

from benchmarks.models.tiny import build
from tasks.engine.model.batching.head import Head

if TYPE_CHECKING:
    from collections.abc import Sequence

TOKENS = mx.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])


def _at(model: Any, places: Sequence[tuple[int, int]]) -> mx.array:
    logits: mx.array = model(TOKENS, cache=make_prompt_cache(model))
    return mx.stack([logits[row, column] for row, column in places])


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("quantised", [False, True])
def test_the_layer_computes_what_is_asked_for_alone(tied: bool, quantised: bool) -> None:
    """One row of the head for each place, whatever layer it is; between such calls the model is as it was."""
    model = build("llama", tie_word_embeddings=tied)
    if quantised:
        nn.quantize(model, group_size=32)
    head = Head(model)
    assert head.chooses
    places = [(0, 2), (1, 4)]
    logits = head.compute(TOKENS, make_prompt_cache(model), places)
    assert logits is not None
    assert mx.allclose(logits, _at(model, places), atol=1e-4)
    assert Head(model).chooses, "a second one on the same model"


def test_a_call_in_the_middle_of_another() -> None:
    """A cache that calls the model itself changes nothing of what the outer call has chosen."""
    model = build("llama")
    head = Head(model)
    inner: list[mx.array | None] = []

    class Calling(KVCache):
        def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
            inner.append(head.compute(TOKENS, make_prompt_cache(model), [] if inner else [(0, 1)]))
            return super().update_and_fetch(keys, values)  # type: ignore[no-any-return]

    logits = head.compute(TOKENS, [Calling() for _ in model.layers], [(1, 3)])
    assert logits is not None
    assert mx.allclose(logits, _at(model, [(1, 3)]), atol=1e-4)
    assert inner[0] is not None
    assert mx.allclose(inner[0], _at(model, [(0, 1)]), atol=1e-4)


def test_what_a_model_does_to_its_logits_is_done() -> None:
    """Gemma 2 bounds them after the layer."""
    model = build("gemma2")
    head = Head(model)
    assert head.chooses
    logits = head.compute(TOKENS, make_prompt_cache(model), [(1, 0)])
    assert logits is not None
    assert mx.allclose(logits, _at(model, [(1, 0)]), atol=1e-4)


class Reading:
    """A model that multiplies with its embedding's weight itself, so no layer is asked."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.layers = model.layers

    def __call__(self, inputs: mx.array, cache: Any = None) -> mx.array:
        hidden = self._model.model(inputs, cache)
        logits: mx.array = hidden @ self._model.model.embed_tokens.weight.T
        return logits

    def named_modules(self) -> Any:
        return self._model.named_modules()


def test_a_model_that_does_not_choose() -> None:
    """Its logits are taken from those of all tokens; so its prompts leave the last token to a decode step."""
    model = Reading(build("llama", tie_word_embeddings=True))
    head = Head(model)
    assert not head.chooses
    logits = head.compute(TOKENS, make_prompt_cache(model), [(0, 4), (1, 1)])
    assert logits is not None
    assert mx.allclose(logits, _at(model, [(0, 4), (1, 1)]), atol=1e-4)


def test_without_places_the_caches_alone_are_filled() -> None:
    """Pieces of a prompt before its last one need no logits."""
    model = build("llama")
    caches = make_prompt_cache(model)
    assert Head(model).compute(TOKENS, caches, []) is None
    assert caches[0].offset == TOKENS.shape[1]

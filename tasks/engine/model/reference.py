"""The logits that a model computes for one row alone, with which all other ways are compared."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache

if TYPE_CHECKING:
    from mlx.nn.layers.base import Module

#: Enough for a prompt of nine tokens in a batch, and a few steps behind it.
SEQUENCE_TOKENS = 16


class Reference:
    """One sequence, and the logits behind each of its tokens, computed in one call when they are first asked for."""

    def __init__(self, model: Module) -> None:
        self._model = model

    @cached_property
    def vocabulary_tokens(self) -> int:
        """The width of the logits, by their shape: nothing is computed."""
        return int(self._model(mx.zeros((1, 1), mx.int32), cache=make_prompt_cache(self._model)).shape[-1])

    @cached_property
    def sequence(self) -> list[int]:
        """The tokens."""
        return [(7919 * n + 31) % self.vocabulary_tokens for n in range(SEQUENCE_TOKENS)]

    @cached_property
    def logits(self) -> mx.array:
        """``[tokens, vocabulary]``, in single precision."""
        logits: mx.array = self._model(mx.array([self.sequence]), cache=make_prompt_cache(self._model))[0].astype(
            mx.float32
        )
        mx.eval(logits)
        return logits

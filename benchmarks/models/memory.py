"""What one row's KV cache takes: by a model's configuration, and by the arrays that mlx-lm's own caches hold."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx_lm.models.cache import ChunkedKVCache, _BaseCache, make_prompt_cache

from benchmarks.models.tiny import config
from tasks.engine.model.measure import cache_parts
from tasks.models.kv_cache import kv_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlx.nn.layers.base import Module

#: The lengths of the rows that are measured.
LENGTHS_TOKENS = (4096, 32768)
#: As many tokens as a state may need to get its size.
FIRST_TOKENS = 4
#: A prompt is computed in pieces of so many tokens, as an engine does.
PIECE_TOKENS = 512
#: Tokens of the answer, one for each step: a window gives back what a piece of the prompt added to it.
ANSWER_TOKENS = 2


@dataclass(slots=True, frozen=True)
class RowBytes:
    """A row of so many tokens, with values of 16 bits."""

    tokens: int
    estimated: int
    measured: int


def rows_of(name: str) -> list[RowBytes]:
    """The rows of an architecture's or a variant's tiny model, one for each length.

    Raises:
        Exception: whatever its module raises; SystemExit where it ends the program.
    """
    model, described = unloaded(name)
    estimate = kv_size(described)
    if estimate is None:
        raise ValueError("its configuration says nothing of its cache")
    return [RowBytes(tokens, estimate.row_bytes(tokens), held_bytes(model, tokens)) for tokens in LENGTHS_TOKENS]


def unloaded(name: str) -> tuple[Module, dict[str, Any]]:
    """The tiny model in 16 bits and its configuration; its weights are never computed."""
    architecture, described = config(name)
    module = importlib.import_module(f"mlx_lm.models.{architecture}")
    model: Module = module.Model(module.ModelArgs.from_dict(described))
    model.set_dtype(mx.float16)
    return model, described


def held_bytes(model: Module, tokens: int) -> int:
    """What a row's caches hold once they have so many tokens: the shapes of their arrays, whose numbers nobody computes.

    The model fills its caches with a few tokens, which gives states their size; then the caches are given as many keys and
    values as the rest would bring.
    """
    cache = make_prompt_cache(model)
    model(mx.zeros((1, FIRST_TOKENS), mx.int32), cache=cache)
    for part in cache_parts(cache):
        if not isinstance(part, _BaseCache):
            raise TypeError(f"{type(part).__name__} is a cache of a model's own")
        if getattr(part, "keys", None) is not None:
            keys, values = (_one_token(array) for array in (part.keys, part.values))
            for count in _pieces(tokens - FIRST_TOKENS):
                if isinstance(part, ChunkedKVCache):
                    part.maybe_trim_front()
                part.update_and_fetch(*(mx.repeat(array, count, axis=2) for array in (keys, values)))
                part.keys, part.values = (mx.zeros(array.shape, array.dtype) for array in (part.keys, part.values))
    return sum(layer.nbytes for layer in cache)


def _one_token(array: mx.array) -> mx.array:
    rows, heads, _, width = array.shape
    return mx.zeros((rows, heads, 1, width), array.dtype)


def _pieces(tokens: int) -> Iterator[int]:
    left = tokens - ANSWER_TOKENS
    while left > 0:
        yield min(left, PIECE_TOKENS)
        left -= PIECE_TOKENS
    yield from [1] * ANSWER_TOKENS

"""Measures the KV cache of a loaded model, from the shapes of its caches."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx_lm.models.cache import ArraysCache, ChunkedKVCache, KVCache, RotatingKVCache, make_prompt_cache

from tasks.messages.memory import STEP_TOKENS, KvSize, KvWindow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mlx.nn.layers.base import Module

#: Caches whose size follows from the shapes of their arrays.
_KNOWN = (KVCache, RotatingKVCache, ChunkedKVCache, ArraysCache)
#: As many tokens as a state may need to get its size.
_TRIED_TOKENS = 4


def measure_cache(model: Module) -> KvSize:
    """Return the bytes of one row's cache, inferred from the shapes for a few tokens; nothing is computed."""
    cache = make_prompt_cache(model)
    model(mx.zeros((1, _TRIED_TOKENS), mx.int32), cache=cache)
    parts = list(cache_parts(cache))
    if not all(isinstance(part, _KNOWN) for part in parts):
        return _by_growth(model)
    per_token = per_row = 0
    windows: Counter[int] = Counter()
    for part in parts:
        keys = getattr(part, "keys", None)
        most = getattr(part, "max_size", None)
        if isinstance(part, ChunkedKVCache):
            most = part.chunk_size + STEP_TOKENS  # it drops what is before a chunk, and then grows by a step
        if keys is None:
            per_row += part.nbytes
        elif most is None:
            per_token += part.nbytes // keys.shape[2]
        else:
            windows[int(most)] += part.nbytes // keys.shape[2]
    kept = tuple(KvWindow(tokens, size) for tokens, size in windows.items())
    return KvSize(bytes_per_token=per_token, bytes_per_row=per_row, windows=kept)


def cache_parts(caches: Any) -> Iterator[Any]:
    """The caches of all layers; one layer may have several."""
    for cache in caches:
        nested = getattr(cache, "caches", None)
        if nested is None:
            yield cache
        else:
            yield from cache_parts(nested)


def _by_growth(model: Module) -> KvSize:
    """For a kind of cache that is not known: a line through two lengths, which is never too little."""
    cache = make_prompt_cache(model)
    sizes = []
    for _ in range(2):
        model(mx.zeros((1, STEP_TOKENS), mx.int32), cache=cache)
        sizes.append(sum(layer.nbytes for layer in cache))
    per_token = -(-(sizes[1] - sizes[0]) // STEP_TOKENS)
    return KvSize(bytes_per_token=per_token, bytes_per_row=max(0, sizes[0] - per_token * STEP_TOKENS))

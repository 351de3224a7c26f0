"""The size of a model's KV cache by its configuration, as mlx-lm lays it out: layer by layer, before anything is loaded.

Most models keep keys and values of every token in each layer, so that their dimensions tell all. Others keep the last
tokens only, one latent vector for all heads, or a state of one size; in some, layers share a cache. The tables here say
which; tests/unit/models/test_kv_cache.py holds every kind of model that mlx-lm loads against them.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from tasks.messages.memory import KvSize, KvWindow
from tasks.models.kv_cache.dimensions import Dimensions
from tasks.models.kv_cache.families import FAMILIES
from tasks.models.kv_cache.layers import usual_layers

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Keys and values have 16 bits; most states of recurrent layers have 32.
VALUE_BYTES, STATE_BYTES = 2, 4


def kv_size(config: Mapping[str, Any]) -> KvSize | None:
    """The cache of one row with 16-bit values; ``None`` where the configuration lacks a dimension."""
    dims = Dimensions(config)
    layers = FAMILIES.get(dims.model, usual_layers)(dims)
    if not layers or not all(layer.values or layer.state for layer in layers if layer.kind != "none"):
        return None
    windows: Counter[int] = Counter()
    for layer in layers:
        if layer.kind == "window":
            windows[dims.window] += layer.values * VALUE_BYTES
    states = [layer.state for layer in layers]
    return KvSize(
        bytes_per_token=sum(layer.values for layer in layers if layer.kind == "full") * VALUE_BYTES,
        bytes_per_row=sum(state.values for state in states) * VALUE_BYTES,
        wide_bytes_per_row=sum(state.wide_values for state in states) * STATE_BYTES,
        windows=tuple(KvWindow(tokens, size) for tokens, size in windows.items()),
    )

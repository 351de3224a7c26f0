"""Corrects errors of mlx-lm 0.32.2, where that is possible from outside, and refuses the other models.

Errors that short rows show are found at load (:mod:`tasks.engine.model.selftest`) and need no entry here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlx_lm.models import gemma2, plamo3
from mlx_lm.models.cache import RotatingKVCache

from tasks.errors import ModelLoadFailed

if TYPE_CHECKING:
    import mlx.core as mx
    from mlx.nn.layers.base import Module

#: By ``model_type``, why rows are computed one by one although short ones show no difference.
APART = {
    "minimax_m3_vl": "its attention chooses blocks of keys by their places in the padded cache",
}
#: By ``model_type``, why a model is not served.
REFUSED = {
    "phi3small": "mlx-lm adds its attention's mask where it should leave keys out, and the computation may end the process",
}


def correct(model: Module) -> str:
    """Correct a model in place, and return why its rows have to be computed one by one, or nothing.

    Raises:
        ModelLoadFailed: the model cannot be computed at all.
    """
    kind = str(getattr(model, "model_type", ""))
    if kind in REFUSED:
        raise ModelLoadFailed(f"a model of type {kind!r} cannot be served: {REFUSED[kind]}")
    for _, part in model.named_modules():
        if type(part) in _CORRECTED:
            part.__class__ = _CORRECTED[type(part)]
    return APART.get(kind, "")


class _Gemma2Attention(gemma2.Attention):
    """Grouped heads are an axis of their own in Gemma 2's scores, ``[rows, kv heads, repeats, ...]``; a batch's masks lack it."""

    def __call__(self, x: mx.array, mask: mx.array | None = None, cache: Any = None) -> mx.array:
        if mask is not None and mask.ndim == 4 and self.repeats > 1:
            mask = mask[:, :, None]
        output: mx.array = super().__call__(x, mask, cache)
        return output


class _Plamo3(plamo3.Model):
    """Its mask lets a token see ``window_size`` tokens before itself; its caches lack room for the last of them."""

    def make_cache(self) -> list[Any]:
        cache: list[Any] = super().make_cache()
        return [RotatingKVCache(layer.max_size + 1) if isinstance(layer, RotatingKVCache) else layer for layer in cache]


_CORRECTED: dict[type, type] = {gemma2.Attention: _Gemma2Attention, plamo3.Model: _Plamo3}

"""Functions of MLX and mlx-lm that the code of models calls, for numpy's arrays too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx_lm.models import activations, base

from tasks.engine.model.layout import elementwise
from tasks.engine.model.layout.attention import attend

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Array = npt.NDArray[np.float32]


def rms_norm(x: Array, weight: Any, eps: float) -> Array:
    """As MLX's function, which takes no weight as well."""
    scale = np.vecdot(x, x)[..., None]
    scale /= x.shape[-1]
    scale += eps
    normal: Array = x / np.sqrt(scale, out=scale)
    if weight is not None:
        normal *= np.asarray(weight)
    return normal


def layer_norm(x: Array, weight: Any, bias: Any, eps: float) -> Array:
    """As MLX's function, which takes neither weight nor bias as well."""
    normal = rms_norm(x - x.mean(-1, keepdims=True), weight, eps)
    if bias is not None:
        normal += np.asarray(bias)
    return normal


def silu(x: Array) -> Array:
    """``x * sigmoid(x)``. The caller sees to it that numpy ignores overflows."""
    power = np.negative(x)
    np.exp(power, out=power)
    power += 1.0
    return np.divide(x, power, out=power)


def swiglu(gate: Array, x: Array) -> Array:
    """``silu(gate) * x``."""
    product = silu(gate)
    product *= x
    return product


class _Names:
    """A namespace, some of whose functions take numpy's arrays too."""

    def __init__(self, usual: Any, **ours: Any) -> None:
        self._usual = usual
        vars(self).update(ours)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._usual, name)


def _either(usual: Any, ours: Callable[..., Any]) -> Callable[..., Any]:
    def call(first: Any, *others: Any, **options: Any) -> Any:
        kind = type(first[0]) if isinstance(first, list | tuple) else type(first)
        return (ours if kind is np.ndarray else usual)(first, *others, **options)

    return call


_FAST = _Names(
    mx.fast, rms_norm=_either(mx.fast.rms_norm, rms_norm), layer_norm=_either(mx.fast.layer_norm, layer_norm)
)
_MX = _Names(
    mx,
    fast=_FAST,
    split=_either(mx.split, np.split),
    concatenate=_either(mx.concatenate, np.concatenate),
    tanh=_either(mx.tanh, np.tanh),
)
_NN = _Names(
    nn,
    silu=_either(nn.silu, silu),
    gelu=_either(nn.gelu, elementwise.gelu),
    gelu_approx=_either(nn.gelu_approx, elementwise.gelu_approx),
)
#: What takes the place of these in the code of models.
EITHER: list[tuple[Any, Any]] = [
    (mx, _MX),
    (nn, _NN),
    (activations.swiglu, _either(activations.swiglu, swiglu)),
    (base.scaled_dot_product_attention, attend),
]

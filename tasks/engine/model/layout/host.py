"""Steps of few tokens on numpy: mlx-lm's own code of a model, given numpy's arrays in the place of MLX's.

MLX's CPU backend hands each operation to a thread. A step of a model with 30 layers has more than 5,000 of them, which took half
of the time of a step of one row. numpy computes where it is called, on the same weights and caches. Much of mlx-lm's code does
not care whose arrays it has. What does care is replaced here, module by module; each module still computes MLX's arrays as
before. Code that this does not know raises, or computes something else: :mod:`tasks.engine.model.layout.host_trial` finds out.
"""

from __future__ import annotations

from functools import cache, partial
from types import FunctionType
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx_lm.models import rope_utils

from tasks.engine.model.layout.functions import EITHER, layer_norm, rms_norm
from tasks.engine.model.layout.rotation import Rotation

if TYPE_CHECKING:
    from mlx.nn.layers.base import Module

#: Whose code is called with numpy's arrays.
_MODELS = "mlx_lm.models."
#: Modules that rotate each position by fixed angles.
_ROPES = (nn.RoPE, rope_utils.Llama3RoPE, rope_utils.SuScaledRoPE, rope_utils.YarnRoPE)


def prepare(model: Module) -> None:
    """Let a model's modules compute numpy's arrays, too."""
    rotations: dict[str, Rotation] = {}
    for _, module in model.named_modules():
        kind: type = type(module)
        if kind in _HOST:
            module.__class__ = _HOST[kind]
        elif kind in _ROPES:
            module._rotation = rotations.setdefault(_describe(module), _make_rotation(module))
            module.__class__ = _rotating(kind)
        elif (rebound := _rebound(kind)) is not None:
            module.__class__ = rebound


class HostNorm(nn.RMSNorm):
    """Root mean square normalisation."""

    def __call__(self, x: Any) -> Any:
        """As :class:`mlx.nn.RMSNorm`."""
        if not isinstance(x, np.ndarray):
            return super().__call__(x)
        return rms_norm(x, self.weight, self.eps)


class HostLayerNorm(nn.LayerNorm):
    """Layer normalisation."""

    def __call__(self, x: Any) -> Any:
        """As :class:`mlx.nn.LayerNorm`."""
        if not isinstance(x, np.ndarray):
            return super().__call__(x)
        return layer_norm(x, self.get("weight"), self.get("bias"), self.eps)


class HostLinear(nn.Linear):
    """A layer whose weight does not lie in panels, computed by MLX."""

    def __call__(self, x: Any) -> Any:
        """As :class:`mlx.nn.Linear`."""
        if not isinstance(x, np.ndarray):
            return super().__call__(x)
        return np.asarray(super().__call__(mx.array(x)))


class HostEmbedding(nn.Embedding):
    """An embedding whose weight does not lie in panels."""

    def __call__(self, ids: Any) -> Any:
        """As :class:`mlx.nn.Embedding`."""
        return np.asarray(self.weight)[ids] if isinstance(ids, np.ndarray) else super().__call__(ids)

    def as_linear(self, x: Any) -> Any:
        """As :class:`mlx.nn.Embedding`; computed by MLX."""
        return np.asarray(super().as_linear(mx.array(x))) if isinstance(x, np.ndarray) else super().as_linear(x)


#: What takes the place of these modules.
_HOST: dict[type, type] = {
    nn.RMSNorm: HostNorm,
    nn.LayerNorm: HostLayerNorm,
    nn.Linear: HostLinear,
    nn.Embedding: HostEmbedding,
}


class _Rotating(nn.Module):
    """Rotary positions: the first of the two parents of classes that :func:`_rotating` makes."""

    _rotation: Rotation

    def __call__(self, x: Any, offset: Any = 0) -> Any:
        return self._rotation(x, offset) if isinstance(x, np.ndarray) else super().__call__(x, offset=offset)


@cache
def _rotating(kind: type[Module]) -> type[Module]:
    return type(kind.__name__, (_Rotating, kind), {})


def _make_rotation(rope: Module) -> Rotation:
    dims = rope.dim if type(rope) is rope_utils.SuScaledRoPE else rope.dims
    return Rotation(partial(type(rope).__call__, rope), dims, traditional=getattr(rope, "traditional", False))


def _describe(rope: Module) -> str:
    """Equal for modules that rotate alike: layers have one each."""
    numbers = {name: value for name, value in vars(rope).items() if isinstance(value, int | float)}
    arrays = {name: value.tolist() for name, value in {**vars(rope), **rope}.items() if isinstance(value, mx.array)}
    return f"{type(rope)} {sorted(numbers.items())} {sorted(arrays.items())}"


@cache
def _rebound(kind: type[Module]) -> type[Module] | None:
    """This class of mlx-lm's with functions for either kind of arrays where its code names others; ``None`` where it does not."""
    call = kind.__call__
    if not isinstance(call, FunctionType) or not kind.__module__.startswith(_MODELS):
        return None
    usual = {name: call.__globals__.get(name) for name in call.__code__.co_names}
    either = {name: ours for name, value in usual.items() for theirs, ours in EITHER if value is theirs}
    if not either:
        return None
    changed = FunctionType(
        call.__code__, {**call.__globals__, **either}, call.__name__, call.__defaults__, call.__closure__
    )
    changed.__kwdefaults__ = call.__kwdefaults__
    return type(kind.__name__, (kind,), {"__call__": changed})

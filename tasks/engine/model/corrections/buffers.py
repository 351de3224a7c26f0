"""Buffers of PyTorch that lie among a model's weights: constants, which transformers leaves out as mlx-lm's llama does.

Other modules of mlx-lm 0.32.2 refuse the whole model for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlx.utils import tree_flatten
from mlx_lm import utils

if TYPE_CHECKING:
    from collections.abc import Callable

    from mlx.nn.layers.base import Module

#: How their names end: frequencies of rotary positions, causal masks, and what is put in the place of masked scores.
ENDINGS = (".inv_freq", ".attn.bias", ".attention.bias", ".masked_bias")


def without_buffers(config: dict[str, Any]) -> tuple[Callable[[Any], Module], Any]:
    """The classes of :func:`mlx_lm.utils._get_classes`, of a model that takes weights with such buffers."""
    model_class, arguments = utils._get_classes(config)

    def made(args: Any) -> Module:
        model: Module = model_class(args)
        known = {name for name, _ in tree_flatten(model.parameters())}
        sanitize = getattr(model, "sanitize", dict)
        model.sanitize = lambda weights: _kept(sanitize(weights), known)
        return model

    return made, arguments


def _kept(weights: dict[str, Any], known: set[str]) -> dict[str, Any]:
    return {name: array for name, array in weights.items() if name in known or not name.endswith(ENDINGS)}

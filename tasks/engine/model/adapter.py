"""A LoRA adapter on its base model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
from mlx.utils import tree_unflatten

from tasks.engine.files.staging import readable
from tasks.errors import ModelLoadFailed

if TYPE_CHECKING:
    from mlx.nn.layers.base import Module

    from tasks.engine.files.adapter import Adapter


def apply_adapter(model: Module, adapter: Adapter) -> None:
    """Change the model's layers as the adapter's files say.

    Raises:
        ModelLoadFailed: it is of another model.
    """
    from mlx_lm.tuner.utils import load_adapters  # takes a tenth of a second, and few models have adapters

    try:
        with readable(adapter.path) as folder:
            load_adapters(model, str(folder))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelLoadFailed(f"adapter {adapter.path}: does not fit its base model: {error}") from error
    model.eval()


def fuse_adapter(model: Module) -> None:
    """Put the adapter into dense weights of single precision, where no step pays for it any more.

    Weights of fewer bits would be rounded once more, and stay as they are, with the adapter beside them.
    """
    layers = [(name, layer) for name, layer in model.named_modules() if hasattr(layer, "fuse")]
    fused = [(name, layer.fuse()) for name, layer in layers if _is_single(layer)]
    if fused:
        model.update_modules(tree_unflatten(fused))


def _is_single(layer: Module) -> bool:
    base = layer.linear if "linear" in layer else layer.embedding if "embedding" in layer else None
    return base is not None and "scales" not in base and base.weight.dtype == mx.float32

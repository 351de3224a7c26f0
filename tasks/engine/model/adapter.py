"""A LoRA adapter on its base model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten

from tasks.engine.files.adapter import CONFIG, WEIGHTS
from tasks.engine.files.staging import readable
from tasks.errors import ModelLoadFailed
from tasks.models.weights import read_tensors

if TYPE_CHECKING:
    from mlx.nn.layers.base import Module

    from tasks.engine.files.adapter import Adapter


def apply_adapter(model: Module, adapter: Adapter) -> None:
    """Change the model's layers as the adapter's files say.

    Raises:
        ModelLoadFailed: it is of another model, or has not all of the weights that its configuration names.
    """
    from mlx_lm.tuner.utils import load_adapters  # takes a tenth of a second, and few models have adapters

    try:
        with readable(adapter.path) as folder:
            load_adapters(model, str(folder))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelLoadFailed(f"adapter {adapter.path}: does not fit its base model: {error}") from error
    _require_all(model, adapter)
    model.eval()


def _require_all(model: Module, adapter: Adapter) -> None:
    """Check that each layer that was changed has got its weights: mlx-lm leaves those that are missing as they were made."""
    given = {tensor.name for tensor in read_tensors(adapter.path / WEIGHTS)}
    wanted = [name for name, _ in tree_flatten(model.parameters()) if name.endswith((".lora_a", ".lora_b"))]
    missing = [name for name in wanted if name not in given]
    if missing:
        raise ModelLoadFailed(
            f"adapter {adapter.path}: {WEIGHTS} lacks {len(missing)} of the {len(wanted)} weights that {CONFIG} asks for, "
            f"such as {missing[0]}; correct num_layers or the keys there, or fetch the adapter again"
        )


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

"""Weights that have to be fractions: where a file has whole numbers in their place, MLX computes with these without an error.

MLX reads an 8-bit float of a file as a byte. mlx-lm unpacks such weights of some families, where config.json names the
quantisation; others would answer nonsense.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import mlx.core as mx
from mlx import nn
from mlx_lm.models.switch_layers import SwitchLinear

from tasks.errors import ModelLoadFailed
from tasks.models.weights import read_tensors, weight_files

if TYPE_CHECKING:
    from pathlib import Path

    from mlx.nn.layers.base import Module

#: Quantised layers are of other classes.
_LAYERS = (nn.Conv1d, nn.Embedding, nn.LayerNorm, nn.Linear, nn.RMSNorm, SwitchLinear)


def require_fractions(model: Module, folder: Path) -> None:
    """Check the weights of all layers that are not quantised.

    Raises:
        ModelLoadFailed: some are whole numbers.
    """
    for path, module in model.named_modules():
        weight = module.get("weight") if isinstance(module, _LAYERS) else None
        if weight is not None and not mx.issubdtype(weight.dtype, mx.floating):
            name = f"{path}.weight"
            raise ModelLoadFailed(
                f"{folder}: {name} has numbers of type {_type_of(folder, name, weight)}, where MLX needs fractions of 16 or 32 "
                "bits: take the model's weights of 16 bits, or a conversion for MLX"
            )


def _type_of(folder: Path, name: str, weight: mx.array) -> str:
    """The type by the file that has the tensor, else by MLX: mlx-lm gives some tensors other names."""
    tensors = (tensor for path in weight_files(folder) for tensor in read_tensors(path))
    return next((tensor.dtype for tensor in tensors if tensor.name == name), str(weight.dtype))

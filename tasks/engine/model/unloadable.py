"""Explains an error of mlx-lm's loader: its meaning for a model's files, and the remedy."""

from __future__ import annotations

import re
from importlib import metadata
from typing import TYPE_CHECKING

from tasks.engine.failure import first_line
from tasks.engine.model.corrections.tied import FIELD
from tasks.models.weights import read_tensors, weight_files

if TYPE_CHECKING:
    from typing import Any

    from tasks.engine.files.folder import ModelFolder

_LACKING = re.compile(r"missing \d+ required positional arguments?: (.*)")
_UNREAD = re.compile(r"unsupported dtype (\S+)")
_UNKNOWN = re.compile(r"Model type \S+ not supported")
#: The errors of code that meets a field of another kind than it expects.
_ODD_FIELD = (AttributeError, KeyError, TypeError)


def why_unloadable(folder: ModelFolder, error: Exception) -> str:
    """One line that names the file, the field and the remedy where it is known."""
    message, config = first_line(error), folder.config
    place, mlx_lm = folder.path / "config.json", f"mlx-lm {metadata.version('mlx-lm')}"
    kind = config["model_type"]
    if _UNKNOWN.search(message):
        own = "; code that comes with a model is not run" if "auto_map" in config else ""
        return f"{place}: model_type is {kind!r}, which {mlx_lm} does not know{own}: take a model of another type"
    if lacking := _LACKING.search(message):
        return f"{place}: lacks {lacking[1]}, which {mlx_lm} needs for a model of type {kind!r}; fetch the file again"
    if unread := _UNREAD.search(message):
        return f"{_tensor_of(folder, unread[1])}, which MLX does not read: save the model with numbers of 16 or 32 bits"
    if quantised := _quantised(config, error):
        return (
            f"{place}: {quantised}, and {mlx_lm} cannot read that ({message}): take the model's weights of 16 bits, or a "
            "conversion for MLX"
        )
    if "lm_head.weight" in message and config.get(FIELD) is False:
        return (
            f"{place}: {FIELD} is false, and the files have no lm_head.weight: make it true, or fetch the weights again"
        )
    if config.get("rope_scaling") and (isinstance(error, _ODD_FIELD) or "RoPE" in message or "rope_scaling" in message):
        return f"{place}: {mlx_lm} cannot compute rope_scaling {str(config['rope_scaling'])[:200]} ({message})"
    return f"{folder.path}: {message}"


def _quantised(config: dict[str, Any], error: Exception) -> str:
    """Name a quantisation in the file that is not MLX's own, or that lacks a field."""
    theirs = config.get("quantization_config")
    if not config.get("quantization") and isinstance(theirs, dict) and (method := theirs.get("quant_method")):
        return f"quantization_config says that the weights are quantised by {method!r}"
    ours = config.get("quantization") or theirs
    return f"quantization is {str(ours)[:200]}" if ours and isinstance(error, _ODD_FIELD) else ""


def _tensor_of(folder: ModelFolder, dtype: str) -> str:
    """The first tensor with numbers of this type, with its file."""
    tensors = ((path, tensor) for path in weight_files(folder.path) for tensor in read_tensors(path))
    found = (f"{path}: {tensor.name} has numbers of type {dtype}" for path, tensor in tensors if tensor.dtype == dtype)
    return next(found, f"{folder.path}: its weights have numbers of type {dtype}")

"""Reads a model's size from its files. Only their JSON is read: a few kilobytes, however large the weights are.

config.json is as transformers writes it; :mod:`tasks.models.weights` finds the files with the weights. mlx packs
quantised weights into 32-bit words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.models.context import read_context
from tasks.models.embedding import ENCODERS
from tasks.models.foreign import read_config
from tasks.models.kv_cache import kv_size
from tasks.models.reading import ModelFilesUnreadable, read_object_if_there, text_config, whole
from tasks.models.weights import INDEX, WeightsMissing, read_tensors, weight_files

if TYPE_CHECKING:
    from pathlib import Path

    from tasks.messages.memory import KvSize

# Tensors that belong to a quantised weight and hold no parameter of the model.
_NOT_PARAMETERS = (".scales", ".biases", "_scales", ".qzeros", ".g_idx", ".weight_scale", ".weight_scale_inv")
_PACKED_DTYPES = {"U32", "I32"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSize:
    """The size of a model; ``None`` where nothing says so.

    Args:
        parameters_b: billions of parameters in all.
        weights_bytes: its weights, as they lie on the disk.
        kv: the KV cache of one request, with values of 16 bits.
        single_precision: whether the files have 32-bit weights, and KV caches with them.
        context_tokens: the longest context that it was made for.
        encoder: whether it is an encoder, which the engine computes with in 32 bits, whatever the files have.
    """

    parameters_b: float | None = None
    weights_bytes: int | None = None
    kv: KvSize | None = None
    single_precision: bool = False
    context_tokens: int | None = None
    encoder: bool = False


def read_model_size(folder: Path) -> ModelSize:
    """The size of the model in this folder, from its weights' headers, else their index, else its config alone.

    Raises:
        ModelFilesUnreadable: config.json is missing, or a file is damaged.
    """
    config = read_config(folder)
    try:
        parameters, weights_bytes = _from_weights(folder, config) or _from_index(folder) or (None, None)
        text = text_config(config)
        parameters = parameters or _count_from_config(text)
        context = read_context(folder, config)
        return ModelSize(
            parameters_b=parameters / 1e9 if parameters else None,
            weights_bytes=weights_bytes,
            kv=kv_size(config),
            single_precision=_is_single(text),
            context_tokens=context.tokens if context is not None else None,
            encoder=config.get("model_type") in ENCODERS,
        )
    except (TypeError, AttributeError) as error:
        raise ModelFilesUnreadable(
            f"{folder}: a field of config.json or of the index is impossible ({error})"
        ) from None


def _from_weights(folder: Path, config: dict[str, Any]) -> tuple[int, int] | None:
    try:
        files = weight_files(folder)
    except WeightsMissing:
        return None
    tensors = [tensor for path in files for tensor in read_tensors(path)]
    parameters = sum(_parameters_of(tensor.name, tensor.dtype, tensor.shape, config) for tensor in tensors)
    return parameters, sum(tensor.end - tensor.start for tensor in tensors)


def _from_index(folder: Path) -> tuple[int | None, int | None] | None:
    metadata = read_object_if_there(folder / INDEX).get("metadata")
    if not isinstance(metadata, dict):
        return None
    return whole(metadata.get("total_parameters")), whole(metadata.get("total_size"))


def _is_single(config: dict[str, Any]) -> bool:
    quantised = config.get("quantization") or config.get("quantization_config")
    return not quantised and "float32" in (config.get("torch_dtype"), config.get("dtype"))


def _parameters_of(name: str, dtype: str, shape: list[int], config: dict[str, Any]) -> int:
    """Count the model's parameters in a tensor: packed words count as what is packed into them."""
    if name.endswith(_NOT_PARAMETERS):
        return 0
    count = math.prod(shape)
    if dtype in _PACKED_DTYPES:
        return count * 32 // _bits_of(name, config)
    # gpt-oss as published: MXFP4 blocks, two values in each byte.
    return count * 2 if dtype == "U8" and name.endswith("_blocks") else count


def _bits_of(name: str, config: dict[str, Any]) -> int:
    """Return the bits per weight of a packed tensor; mlx-lm writes exceptions from the whole model's under the layer's name."""
    quantization = config.get("quantization") or config.get("quantization_config")
    if not isinstance(quantization, dict):
        return 4
    layer = quantization.get(name.rpartition(".")[0])
    bits = layer.get("bits") if isinstance(layer, dict) else None
    return whole(bits) or whole(quantization.get("bits")) or 4


def _count_from_config(config: dict[str, Any]) -> int | None:
    """Parameters of a decoder by its dimensions: embeddings, and attention and a gated MLP (or experts) per layer."""
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    hidden, layers, heads, vocabulary = (whole(config.get(name)) for name in names)
    head_dim = _head_dim(config)
    if not (hidden and layers and heads and vocabulary and head_dim):
        return None
    kv_heads = whole(config.get("num_key_value_heads")) or heads
    attention = 2 * hidden * head_dim * (heads + kv_heads)
    experts = next(filter(None, (whole(config.get(name)) for name in _EXPERTS)), 1)
    width = whole(config.get("moe_intermediate_size")) if experts > 1 else None
    width = width or whole(config.get("intermediate_size"))
    if not width:
        return None
    embeddings = vocabulary * hidden * (1 if config.get("tie_word_embeddings") else 2)
    return embeddings + layers * (attention + 3 * hidden * width * experts)


_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


def _head_dim(config: dict[str, Any]) -> int | None:
    given = whole(config.get("head_dim"))
    hidden, heads = whole(config.get("hidden_size")), whole(config.get("num_attention_heads"))
    return given or (hidden // heads if hidden and heads else None)

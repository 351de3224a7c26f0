"""Rotary positions under the names that mlx-lm's code knows.

transformers 5 writes the base, the scaling and the rotated share of a head into ``rope_parameters``. Most modules of mlx-lm
0.32.2 read the older fields alone; where these are missing they take their own defaults, and the model answers nonsense
without an error. Of YaRN, mlx-lm takes 4,096 tokens where the file leaves out the length that is scaled. It rounds the range
between scaled and other frequencies also where the file says ``"truncate": false``, as gpt-oss does, one of whose frequencies
is off by 76 % then. Of LongRoPE it takes the factors of long contexts, however short the context is.

A scaling has its kind under ``type`` or ``rope_type``, and its factor as any number; some modules read one of the names alone,
and a float.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx_lm import utils
from mlx_lm.models.rope_utils import SuScaledRoPE, YarnRoPE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mlx.nn.layers.base import Module

_ORIGINAL = "original_max_position_embeddings"
#: Against a division by zero, as in mlx-lm.
_LEAST_RANGE = 1e-3
#: The fields of ``rope_parameters`` that are no part of the scaling, with the names that modules have for them.
_FIELDS = {
    "rope_theta": ("rope_theta", "rotary_emb_base"),
    "partial_rotary_factor": ("partial_rotary_factor", "rotary_pct"),
    _ORIGINAL: (_ORIGINAL,),
}
#: The same of the layers with a window, where the two kinds of layers differ.
_WINDOW_FIELDS = ("rope_local_base_freq", "swa_rope_theta")


def rotary_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that this config.json lacks for mlx-lm, as its ``rope_parameters`` have them; empty where it lacks none."""
    nested = config.get("text_config")
    if not isinstance(nested, dict):
        return _completed(config)
    found = _completed(nested)
    return {"text_config": {**nested, **found}} if found else {}


def exact_frequencies(model: Module, config: Mapping[str, Any], context_tokens: int) -> None:
    """Give YaRN the frequencies of its authors where they are not to be rounded, and LongRoPE those of a short context.

    Args:
        model: with the frequencies that mlx-lm computes.
        config: mlx-lm's.
        context_tokens: of the longest sequence. One length decides for all: keys are cached, and could not change theirs later.
    """
    text = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    scaling, base = text.get("rope_scaling"), text.get("rope_theta")
    if not isinstance(scaling, dict):
        return
    for _, part in model.named_modules():
        if type(part) is YarnRoPE and scaling.get("truncate") is False and base is not None:
            part._freqs = _yarn_frequencies(part.dims, float(base), scaling)
        elif type(part) is SuScaledRoPE and context_tokens <= part.original_max_position_embeddings:
            short, long = (mx.array(scaling[name], mx.float32) for name in ("short_factor", "long_factor"))
            part._freqs = part._freqs * short / long


def _yarn_frequencies(dims: int, base: float, scaling: Mapping[str, Any]) -> mx.array:
    """As mlx-lm's, tokens for each radian, without its rounding of the range."""
    original = scaling[_ORIGINAL]

    def place(turns: float) -> float:
        return dims * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

    low, high = (place(scaling.get(name, usual)) for name, usual in (("beta_fast", 32), ("beta_slow", 1)))
    low, high = max(low, 0), min(high, dims - 1)
    ramp = mx.clip((mx.arange(dims // 2) - low) / max(high - low, _LEAST_RANGE), 0, 1)
    lengths = mx.power(base, mx.arange(0, dims, 2) / dims)
    return mx.divide(lengths, ramp / scaling["factor"] + (1 - ramp))


def _completed(config: Mapping[str, Any]) -> dict[str, Any]:
    found = _missing(config)
    scaling = found.get("rope_scaling", config.get("rope_scaling"))
    most = config.get("max_position_embeddings")
    if isinstance(scaling, dict) and scaling.keys() & {"type", "rope_type"}:
        more: dict[str, Any] = {"type": _kind(scaling), "rope_type": _kind(scaling)}
        if isinstance(most, int) and _kind(scaling) == "yarn":
            more[_ORIGINAL] = most
        whole = scaling.get("factor")
        floats = {"factor": float(whole)} if type(whole) is int else {}
        if (complete := {**more, **scaling, **floats}) != scaling or floats:
            found["rope_scaling"] = complete
    return found


def _missing(config: Mapping[str, Any]) -> dict[str, Any]:
    parameters = config.get("rope_parameters")
    if not isinstance(parameters, dict) or _is_read(config):
        return {}
    every, windowed = parameters, parameters.get("sliding_attention")
    if isinstance(parameters.get("full_attention"), dict):
        every = parameters["full_attention"]
    found = {name: every[field] for field, names in _FIELDS.items() if field in every for name in names}
    if isinstance(windowed, dict) and "rope_theta" in windowed:
        found |= dict.fromkeys(_WINDOW_FIELDS, windowed["rope_theta"])
    kind = _kind(every)
    found["rope_scaling"] = None  # llama4's code wants to be told
    if kind != "default":
        scaling = {name: value for name, value in every.items() if name not in ("rope_theta", "partial_rotary_factor")}
        found["rope_scaling"] = {**scaling, "type": kind, "rope_type": kind}
    return {name: value for name, value in found.items() if config.get(name) is None}


def _kind(scaling: Mapping[str, Any]) -> str:
    return str(scaling.get("rope_type") or scaling.get("type") or "default")


def _is_read(config: Mapping[str, Any]) -> bool:
    """Whether the module of this type reads ``rope_parameters`` itself."""
    try:
        _, arguments = utils._get_classes(dict(config))
    except (KeyError, ValueError):  # a part of a larger model, which knows it under another name
        return False
    return any(field.name == "rope_parameters" for field in dataclasses.fields(arguments))

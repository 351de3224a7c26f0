"""Rotary positions under the names that mlx-lm's code knows.

transformers 5 writes the base, the scaling and the rotated share of a head into ``rope_parameters``. Most modules of mlx-lm
0.32.2 read the older fields alone; where these are missing they take their own defaults, and the model answers nonsense
without an error.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from mlx_lm import utils

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What is in ``rope_parameters`` and not a part of the scaling, with the names that modules have for it.
_FIELDS = {
    "rope_theta": ("rope_theta", "rotary_emb_base"),
    "partial_rotary_factor": ("partial_rotary_factor", "rotary_pct"),
    "original_max_position_embeddings": ("original_max_position_embeddings",),
}
#: The same of the layers with a window, where the two kinds of layers differ.
_WINDOW_FIELDS = ("rope_local_base_freq", "swa_rope_theta")


def rotary_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that this config.json lacks for mlx-lm, as its ``rope_parameters`` have them; empty where it lacks none."""
    nested = config.get("text_config")
    if not isinstance(nested, dict):
        return _missing(config)
    found = _missing(nested)
    return {"text_config": {**nested, **found}} if found else {}


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
    kind = every.get("rope_type") or every.get("type") or "default"
    found["rope_scaling"] = None  # llama4's code wants to be told
    if kind != "default":
        scaling = {name: value for name, value in every.items() if name not in ("rope_theta", "partial_rotary_factor")}
        found["rope_scaling"] = {**scaling, "type": kind, "rope_type": kind}
    return {name: value for name, value in found.items() if config.get(name) is None}


def _is_read(config: Mapping[str, Any]) -> bool:
    """Whether the module of this type reads ``rope_parameters`` itself."""
    try:
        _, arguments = utils._get_classes(dict(config))
    except (KeyError, ValueError):  # a part of a larger model, which knows it under another name
        return False
    return any(field.name == "rope_parameters" for field in dataclasses.fields(arguments))

"""Tiny models of mlx-lm's architectures with random weights, by the configurations in configs.toml."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import tomllib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx_lm.models
from mlx.utils import tree_map

if TYPE_CHECKING:
    from types import ModuleType

    from mlx.nn.layers.base import Module

CONFIGS = Path(__file__).with_name("configs.toml")
#: Modules of ``mlx_lm.models`` that are parts of architectures.
PARTS = frozenset(
    {"activations", "base", "bitlinear_layers", "cache", "gated_delta", "mla", "pipeline", "rope_utils", "ssm"}
    | {"switch_layers"}
)


def architectures() -> list[str]:
    """The modules of mlx-lm that are architectures; what cannot be imported counts."""
    return sorted({module.name for module in pkgutil.iter_modules(mlx_lm.models.__path__)} - PARTS)


def variants() -> list[str]:
    """The names of what is built beside an architecture's plain form."""
    return list(_configs()["variant"])


def left_out() -> dict[str, str]:
    """The architectures that have no tiny configuration, and why."""
    return dict(_configs()["left_out"])


def build(name: str, seed: int = 0, **fields: Any) -> Module:
    """The tiny model of an architecture or a variant, in single precision.

    Raises:
        Exception: whatever its module raises; SystemExit where it ends the program.
    """
    architecture, described = config(name)
    module = _module(architecture)
    model: Module = module.Model(module.ModelArgs.from_dict({**described, **fields}))
    mx.random.seed(seed)
    model.update(tree_map(_random, model.parameters()))
    model.eval()
    mx.eval(model.parameters())
    return model


def config(name: str) -> tuple[str, dict[str, Any]]:
    """The architecture of this name, or of the variant of this name, and its config.json."""
    variant = dict(_configs()["variant"].get(name, {}))
    architecture = variant.pop("of", name)
    known = {field.name: field for field in dataclasses.fields(_module(architecture).ModelArgs)}
    common = {key: value for key, value in _configs()["common"].items() if key in known}
    described = {"model_type": architecture, **common, **_configs()["own"].get(architecture, {}), **variant}
    if "text_config" in known and "text_config" not in described:
        described["text_config"] = {"model_type": architecture, **_configs()["common"]}
    wanted = [key for key, field in known.items() if _is_required(field) and key not in described]
    return architecture, _with_nulls({**dict.fromkeys(wanted), **described})


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _with_nulls(described: dict[str, Any]) -> dict[str, Any]:
    """TOML has no null: ``none`` names the fields that are."""
    nested = {key: _with_nulls(value) if isinstance(value, dict) else value for key, value in described.items()}
    return {**nested, **dict.fromkeys(nested.pop("none", ()))}


def _random(array: mx.array) -> mx.array:
    """Weights that let every layer have its say: a matrix keeps the length of what it is given, the rest is shifted a little."""
    if not mx.issubdtype(array.dtype, mx.floating):
        return array
    noise = mx.random.normal(array.shape)
    return noise / array.shape[-1] ** 0.5 if array.ndim > 1 else array + 0.2 * noise


def _module(architecture: str) -> ModuleType:
    return importlib.import_module(f"mlx_lm.models.{architecture}")


@cache
def _configs() -> dict[str, Any]:
    return tomllib.loads(CONFIGS.read_text(encoding="utf-8"))

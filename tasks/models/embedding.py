"""Reads how a model makes one vector of a text, from its files in sentence-transformers' format. Only their JSON is read.

``modules.json`` lists the steps: the transformer, how the vectors of its tokens are pooled, dense layers, normalising. The
prompts that its authors trained it with are in ``config_sentence_transformers.json``. Nothing is assumed where a file is
missing: a model that is pooled in another way than it was trained for gives vectors that look right and are not.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tasks.models.reading import ModelFilesUnreadable, read_object, read_object_if_there, whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Pooling: TypeAlias = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]

MODULES = "modules.json"
PROMPTS = "config_sentence_transformers.json"
#: The switches of a pooling's configuration. Where several are on, the results stand behind each other in this order.
_SWITCHES: dict[str, Pooling] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
#: Activation functions of dense layers, by the last part of torch's name.
ACTIVATIONS = ("Identity", "Tanh")
#: Kinds of encoders that the engine computes, by ``model_type``; they generate nothing.
ENCODERS = frozenset({"bert", "roberta", "xlm-roberta", "camembert"})


@dataclass(frozen=True, slots=True)
class Dense:
    """A dense layer behind the pooling; its weights are in this folder of the model's."""

    folder: str
    activation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingRecipe:
    """From tokens to one vector.

    Args:
        pooling: how the tokens' vectors become one.
        include_prompt: whether the prompt's tokens are pooled with the text's.
        dense: layers behind the pooling.
        normalise: whether the vector is scaled to the length 1.
        lower_case: whether the text is written in lower case first.
        prompts: the words before a text, by the kind of text.
        default_prompt: the kind that a text has where a request names none.
    """

    pooling: tuple[Pooling, ...]
    include_prompt: bool = True
    dense: tuple[Dense, ...] = ()
    normalise: bool = False
    lower_case: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None


def read_recipe(folder: Path) -> EmbeddingRecipe | None:
    """The recipe of the model in this folder; ``None`` for a model that generates.

    Raises:
        ModelFilesUnreadable: a file is missing or damaged, or asks for a step that is not supported.
    """
    if not (folder / MODULES).is_file():
        return None
    modules = _modules(folder)
    kinds = [kind for kind, _ in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or modules[0][1]:
        raise ModelFilesUnreadable(
            f"{folder / MODULES}: begins with {', '.join(kinds[:2]) or 'nothing'}; a Transformer in the model's folder and a "
            "Pooling behind it are supported"
        )
    behind = kinds[2:]
    if behind != ["Dense"] * behind.count("Dense") + ["Normalize"] * behind.count("Normalize"):
        raise ModelFilesUnreadable(
            f"{folder / MODULES}: has {', '.join(behind)} behind the pooling; Dense layers and then Normalize are supported"
        )
    pooling = read_object(folder / modules[1][1] / "config.json")
    prompts = read_object_if_there(folder / PROMPTS)
    default = prompts.get("default_prompt_name")
    return EmbeddingRecipe(
        pooling=_pooling(folder / modules[1][1] / "config.json", pooling),
        include_prompt=pooling.get("include_prompt") is not False,
        dense=tuple(_dense(folder, path) for kind, path in modules if kind == "Dense"),
        normalise="Normalize" in behind,
        lower_case=read_object_if_there(folder / "sentence_bert_config.json").get("do_lower_case") is True,
        prompts=_prompts(prompts.get("prompts")),
        default_prompt=default if isinstance(default, str) else None,
    )


def encoder_positions(config: dict[str, Any]) -> tuple[int, int] | None:
    """Return how many tokens an encoder takes, and the number of its first position; ``None`` for another kind of model.

    The RoBERTa family counts from behind the padding token's id, and has learned that many positions for nothing.
    """
    if config.get("model_type") not in ENCODERS:
        return None
    learned = whole(config.get("max_position_embeddings")) or 0
    padding = config.get("pad_token_id", 1)
    first = 0 if config["model_type"] == "bert" else (padding if isinstance(padding, int) else 1) + 1
    return learned - first, first


def _modules(folder: Path) -> list[tuple[str, str]]:
    """Kind and folder of each module."""
    path = folder / MODULES
    try:
        modules = json.loads(path.read_bytes())
        return [(str(module["type"]).rpartition(".")[2], str(module.get("path") or "")) for module in modules]
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelFilesUnreadable(f"{path}: is not a list of modules with type and path ({error})") from None


def _pooling(path: Path, config: dict[str, Any]) -> tuple[Pooling, ...]:
    named = config.get("pooling_mode")
    names = [named] if isinstance(named, str) else named if isinstance(named, list) else []
    modes = [mode for mode in _SWITCHES.values() if mode in names]
    modes = modes or [mode for switch, mode in _SWITCHES.items() if config.get(switch) is True]
    if not modes or len(modes) < len(names):
        raise ModelFilesUnreadable(
            f"{path}: names {named!r} and no pooling that is known; known are {', '.join(_SWITCHES.values())}"
        )
    return tuple(modes)


def _dense(folder: Path, path: str) -> Dense:
    config = read_object(folder / path / "config.json")
    activation = str(config.get("activation_function", "")).rpartition(".")[2]
    if activation not in ACTIVATIONS:
        raise ModelFilesUnreadable(
            f"{folder / path / 'config.json'}: activation_function {activation!r}; supported are {', '.join(ACTIVATIONS)}"
        )
    return Dense(path, activation)


def _prompts(prompts: Any) -> dict[str, str]:
    if not isinstance(prompts, dict):
        return {}
    return {str(name): prompt for name, prompt in prompts.items() if isinstance(prompt, str)}

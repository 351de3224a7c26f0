"""Reads how a cross-encoder makes one score of a query and a document, from its files. Only their JSON is read.

``architectures`` and the labels of ``config.json`` say that a model is a cross-encoder; sentence-transformers notes there, too,
which function makes a score of the logit.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from tasks.models.embedding import ENCODERS, MODULES
from tasks.models.reading import ModelFilesUnreadable, whole

if TYPE_CHECKING:
    from pathlib import Path

Activation: TypeAlias = Literal["Sigmoid", "Identity"]

#: Functions that make a score of a logit, by the last part of torch's name.
ACTIVATIONS = ("Sigmoid", "Identity")
#: How transformers' classes end whose head gives one number for each label.
HEAD = "ForSequenceClassification"
#: Of a configuration that names no labels (``transformers.PretrainedConfig``).
DEFAULT_LABELS = 2


@dataclass(frozen=True, slots=True)
class RerankingRecipe:
    """From a pair's logit to its score."""

    activation: Activation


def read_reranking(folder: Path, config: dict[str, Any]) -> RerankingRecipe | None:
    """The recipe of the cross-encoder in this folder; ``None`` for a model that is none.

    Raises:
        ModelFilesUnreadable: it has several labels, or asks for a function that is not supported.
    """
    named = config.get("architectures")
    heads = [name for name in named if str(name).endswith(HEAD)] if isinstance(named, list) else []
    if config.get("model_type") not in ENCODERS or not heads or _is_pooled(folder):
        return None
    labels = _labels(config)
    if labels != 1:
        raise ModelFilesUnreadable(
            f"{folder / 'config.json'}: {heads[0]} with {labels} labels is a classifier; rerank needs a model with one "
            f"label, and embed one with {MODULES}"
        )
    return RerankingRecipe(_activation(folder, config))


def _is_pooled(folder: Path) -> bool:
    """Whether sentence-transformers' files make one vector of a text: the head is left from training."""
    try:
        modules = json.loads((folder / MODULES).read_bytes())
        return any(str(module["type"]).endswith("Pooling") for module in modules)
    except FileNotFoundError:
        return False
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return True  # reading the list reports its fault


def _labels(config: dict[str, Any]) -> int:
    """As transformers counts them: ``num_labels`` is written into few files."""
    names = config.get("id2label")
    if isinstance(names, dict):
        return len(names)
    return whole(config.get("num_labels")) or DEFAULT_LABELS


def _activation(folder: Path, config: dict[str, Any]) -> Activation:
    noted = config.get("sentence_transformers")
    path = noted.get("activation_fn") if isinstance(noted, dict) else None
    path = path or config.get("sbert_ce_default_activation_function")
    if path is None:
        return "Sigmoid"
    activation = str(path).rpartition(".")[2]
    if activation not in ACTIVATIONS:
        raise ModelFilesUnreadable(
            f"{folder / 'config.json'}: names the activation function {path!r:.80}; supported are {', '.join(ACTIVATIONS)}"
        )
    return cast("Activation", activation)

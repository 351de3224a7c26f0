"""The longest context that a model's own files promise, under every name that authors use for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.models.embedding import encoder_positions
from tasks.models.reading import number_of, read_object_if_there, text_config, whole

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: Where nothing says how long the context is.
DEFAULT_CONTEXT_TOKENS = 4096
#: Names of the longest context in config.json, the most common first.
FIELDS = (
    *("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "seq_length", "n_ctx"),
    *("model_max_length", "max_context_length", "context_length", "max_seq_length", "max_target_positions"),
    "block_size",
)
#: The name that counts first for these types: Command R was trained for the 131,072 tokens there, beside 8,192 positions.
FIRST_FIELD = {"cohere": "model_max_length"}
#: Names of the part that is the language model.
PARTS = ("text_config", "llm_config", "language_config", "thinker_config")
#: What transformers takes where config.json leaves the field out: nested configs are saved without their defaults.
DEFAULTS = {
    "gemma3": 131072,
    "gemma3_text": 131072,
    "gemma3n": 32768,
    "gemma3n_text": 32768,
    "gemma4": 131072,
    "gemma4_text": 131072,
    "lfm2": 128000,
    "llama4_text": 131072,
    "minimax_m3_vl_text": 524288,
    "ministral3": 262144,
    "mistral": 131072,
    "mistral4": 1048576,
    "qwen2_5_vl_text": 32768,
    "qwen2_vl_text": 32768,
    "qwen3_5_moe_text": 32768,
    "qwen3_5_text": 32768,
    "qwen3_vl_moe_text": 128000,
    "qwen3_vl_text": 128000,
}
#: Rotary scalings whose ``max_position_embeddings`` is the scaled length already.
SCALED_ALREADY = frozenset({"default", "llama3", "longrope", "su", "mrope", "proportional"})
#: Models that learned one vector for each position: there is nothing beyond the last one.
LEARNED_POSITIONS = frozenset({"gpt2", "gpt_bigcode"})
#: transformers' way to write "no bound" into ``tokenizer_config.json``; some authors write it into config.json as well.
UNBOUNDED_TOKENS = 10**9
#: What "no bound" is taken for: a million tokens is what long models are made for, and the memory bounds a request in any case.
MOST_TOKENS = 1 << 20


@dataclass(frozen=True, slots=True)
class Context:
    """A context in tokens, and where it says so."""

    tokens: int
    said_by: str


def read_context(folder: Path, config: dict[str, Any]) -> Context | None:
    """The longest context by config.json, else by tokenizer_config.json; ``None`` where neither says it."""
    field, tokens = _field(config)
    bound = _tokenizer_bound(folder)
    positions = encoder_positions(config)
    if positions is not None:
        return Context(min(positions[0], bound or positions[0]), f"config.json: {field}")
    if tokens is not None and tokens >= UNBOUNDED_TOKENS and bound is None:
        return Context(MOST_TOKENS, f"config.json: {field}, which sets no bound")
    if tokens is None or tokens >= UNBOUNDED_TOKENS:
        return None if bound is None else Context(bound, "tokenizer_config.json: model_max_length")
    scaled, factor = _scaled(config, tokens, bound)
    return Context(scaled, f"config.json: {field}{f' and {factor}' if factor else ''}")


def learned_positions(config: dict[str, Any]) -> int | None:
    """Return for how many positions the model has vectors; ``None`` where positions are computed."""
    positions = encoder_positions(config)
    if positions is not None:
        return positions[0]
    return _field(config)[1] if config.get("model_type") in LEARNED_POSITIONS else None


def _field(config: dict[str, Any]) -> tuple[str, int | None]:
    for prefix, place in (*_nested(config), ("", config)):
        for name in (FIRST_FIELD.get(str(place.get("model_type")), ""), *FIELDS):
            number = number_of(place.get(name))
            tokens = UNBOUNDED_TOKENS if number is not None and number >= UNBOUNDED_TOKENS else whole(number)
            if tokens is not None:
                return f"{prefix}{name}", tokens
    model_type = text_config(config).get("model_type")
    return f"model_type {model_type}", DEFAULTS.get(str(model_type))


def _nested(config: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The language model's part of a larger model's config, under each name that it goes by."""
    for name in PARTS:
        part = config.get(name)
        if isinstance(part, dict):
            yield from ((f"{name}.{inner}", place) for inner, place in _nested(part))
            yield f"{name}.", part


def _tokenizer_bound(folder: Path) -> int | None:
    tokens = whole(read_object_if_there(folder / "tokenizer_config.json").get("model_max_length"))
    return tokens if tokens is not None and tokens < UNBOUNDED_TOKENS else None


def _scaled(config: dict[str, Any], tokens: int, bound: int | None) -> tuple[int, str]:
    """Return the context with the rotary scaling's factor, and the name of the scaling (empty: none)."""
    text = text_config(config)
    if str(text.get("model_type")).startswith(("gemma3", "gemma4")):  # their field is the scaled length
        return tokens, ""
    name, scaling = _scaling(text)
    kind = str(scaling.get("rope_type") or scaling.get("type") or "default")
    factor = scaling.get("factor")
    if kind in SCALED_ALREADY or isinstance(factor, bool) or not isinstance(factor, int | float):
        return tokens, ""
    if not math.isfinite(factor) or factor <= 1:
        return tokens, ""
    original = whole(scaling.get("original_max_position_embeddings"))
    scaled = int((original or tokens) * factor)
    if original is None and bound is not None and tokens <= bound < scaled:
        # The authors have scaled max_position_embeddings themselves: their tokenizer's bound says so.
        scaled = bound
    return (scaled, f"{name}.factor") if scaled > tokens else (tokens, "")


def _scaling(text: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The rotary scaling: one for all layers, or in newer files one for each kind of layer."""
    for name in ("rope_scaling", "rope_parameters"):
        found = text.get(name)
        if isinstance(found, dict) and found:
            full = found.get("full_attention")
            return name, full if isinstance(full, dict) else found
    return "rope_scaling", {}

"""The caches of each layer of a model: one entry for each cache that mlx-lm makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from tasks.models.kv_cache.states import NO_STATE, STATES, State
from tasks.models.reading import whole

if TYPE_CHECKING:
    from tasks.models.kv_cache.dimensions import Dimensions

Kind: TypeAlias = Literal["full", "window", "state", "none"]

#: Where the files do not list the layers: one layer of this number is full, and the others have a window.
_PATTERNS = {
    "afmoe": 4, "cohere2": 4, "gemma3_text": 6, "gemma3n_text": 5, "gemma4_text": 5, "gpt_oss": 2, "muse_glimmer": 4,
    "olmo3": 4, "plamo3": 8, "spark2_5": 4, "step3p5": 2,
}  # fmt: skip
#: Of these mlx-lm reads the pattern and not the list.
_PATTERN_ONLY = frozenset({"cohere2", "gemma3_text", "plamo3"})
#: Other kinds of models in which mlx-lm's caches rotate; elsewhere it keeps every token, whatever the files say of windows.
_WINDOWED = frozenset(
    {*_PATTERNS, "baichuan_m1", "exaone4", "exaone_moe", "gear", "iquestloopcoder", "laguna", "llama", "mellum"}
    | {"mimo_v2_flash", "ministral3", "muse_spark", "recurrent_gemma"}
)
#: One latent vector and one rotary key for all heads: what multi-head latent attention keeps in these.
_LATENT = frozenset(
    {"deepseek_v3", "deepseek_v32", "glm_moe_dsa", "glm4_moe_lite", "longcat_flash", "longcat_flash_ngram", "mistral4"}
    | {"kimi_linear", "bailing_hybrid", "bailing_moe_v3"}
)
#: The same attention, of which mlx-lm keeps keys and values of every head.
_LATENT_IN_FULL = frozenset({"deepseek_v2", "minicpm3", "youtu_llm"})


@dataclass(slots=True, frozen=True)
class Layer:
    """One cache: a kind, how many values it keeps of a token, and of a row."""

    kind: Kind
    values: int = 0
    state: State = NO_STATE


def kinds_of(dims: Dimensions) -> list[Kind]:
    """Return the kind of each layer's cache: by a list in the configuration, by a pattern, or every token."""
    count = dims.layers
    listed = dims.listed("layer_types") or dims.listed("layers_block_type")
    pattern = dims.get("sliding_window_pattern")
    period = whole(pattern) or _PATTERNS.get(dims.model)
    if isinstance(pattern, str) and pattern and dims.model == "exaone4":
        return ["window" if pattern[at % len(pattern)] == "L" else "full" for at in range(count)]
    if listed and dims.model not in _PATTERN_ONLY:
        return [_kind(str(name), dims) for name in listed[:count]]
    if period and dims.model in _WINDOWED:
        return ["window" if (at + 1) % period else "full" for at in range(count)]
    interval = dims.number("full_attention_interval")
    if dims.model in STATES and interval:
        return ["state" if (at + 1) % interval else "full" for at in range(count)]
    return ["full"] * count


def _kind(name: str, dims: Dimensions) -> Kind:
    if "sliding" in name or "local" in name:
        return "window" if dims.model in _WINDOWED and dims.window else "full"
    if name in {"mlp", "moe"}:
        return "none"
    return "full" if ("attention" in name and "linear" not in name) or "sparse" in name else "state"


def values_of(dims: Dimensions) -> int:
    """Return the number of values of one token in one layer: keys and values of all heads, or those of latent attention."""
    nope, rope, value = (dims.number(f"{name}_head_dim") for name in ("qk_nope", "qk_rope", "v"))
    if dims.model in _LATENT:
        return dims.number("kv_lora_rank") + rope
    if dims.model in _LATENT_IN_FULL:
        value = value if dims.model != "minicpm3" and value else dims.hidden // (dims.heads or 1)
        return dims.heads * (nope + rope + value)
    return dims.kv_heads * 2 * dims.head_dim


def layers_of(kinds: list[Kind], dims: Dimensions) -> list[Layer]:
    """Layers of these kinds, with the dimensions that all layers of a kind have in common."""
    state = STATES[dims.model](dims) if dims.model in STATES else NO_STATE
    return [Layer("state", 0, state) if kind == "state" else Layer(kind, values_of(dims)) for kind in kinds]


def usual_layers(dims: Dimensions) -> list[Layer]:
    """One cache for each layer."""
    return layers_of(kinds_of(dims), dims)

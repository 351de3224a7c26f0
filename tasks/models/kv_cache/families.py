"""Families of models whose caches are not one of keys and values for each layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.models.kv_cache.layers import Kind, Layer, kinds_of, layers_of, usual_layers, values_of
from tasks.models.kv_cache.states import STATES
from tasks.models.reading import whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.models.kv_cache.dimensions import Dimensions


def _sharing(dims: Dimensions) -> list[Layer]:
    """Gemma 3n and 4: the last layers read the caches of earlier ones; full layers may have other heads."""
    kinds = kinds_of(dims)[: max(0, dims.layers - dims.number("num_kv_shared_layers"))]
    values = values_of(dims)
    heads = dims.number("num_global_key_value_heads", default=dims.kv_heads)
    wide = heads * 2 * dims.number("global_head_dim", default=dims.head_dim)
    return [Layer(kind, wide if kind == "full" else values) for kind in kinds]


def _reusing(dims: Dimensions) -> list[Layer]:
    """AFM: the last layers reuse one cache."""
    return [Layer("full", values_of(dims))] * (dims.layers - dims.number("num_kv_reuse_layers"))


def _indexed(dims: Dimensions) -> list[Layer]:
    """DeepSeek 3.2: beside each layer's cache one for the keys of its index, which mlx-lm keeps as values too."""
    return [Layer("full", values_of(dims) + 2 * dims.number("index_head_dim"))] * dims.layers


def _sparse(dims: Dimensions) -> list[Layer]:
    """MiniMax M3: sparse layers keep the keys of their index too."""
    kinds = dims.listed("layer_types") or [
        "sparse" if is_sparse else "full" for is_sparse in dims.listed("sparse_attention_freq")
    ]
    index = [dims.number("index_head_dim") if "sparse" in str(kind) else 0 for kind in kinds or [""] * dims.layers]
    return [Layer("full", values_of(dims) + more) for more in index]


def _doubled(dims: Dimensions) -> list[Layer]:
    """LongCat: two attentions in each layer; the variant with n-grams keeps a few tokens, which is nothing."""
    return [Layer("full", values_of(dims))] * (2 * dims.number("num_layers", "num_hidden_layers"))


def _looped(dims: Dimensions) -> list[Layer]:
    """Nanbeige: each pass through the layers has caches of its own."""
    return [Layer("full", values_of(dims))] * (dims.layers * min(dims.number("num_loops", default=1), dims.layers))


def _looped_window(dims: Dimensions) -> list[Layer]:
    """IQuest's loop: the second pass sees a window."""
    return [Layer("full", values_of(dims)), Layer("window", values_of(dims))] * dims.layers


def _by_layer(dims: Dimensions) -> list[Layer]:
    """OpenELM: each layer has its own number of heads."""
    return [Layer("full", heads * 2 * dims.head_dim) for heads in map(whole, dims.listed("num_kv_heads")) if heads]


def _searched(dims: Dimensions) -> list[Layer]:
    """Nemotron NAS: blocks without attention, and blocks whose heads are grouped otherwise."""
    attention = [block.get("attention") or {} for block in dims.listed("block_configs") if isinstance(block, dict)]
    groups = [whole(described.get("n_heads_in_group")) for described in attention]
    return [Layer("full", dims.heads // group * 2 * dims.head_dim) for group in groups if group]


def _two_kinds(dims: Dimensions) -> list[Layer]:
    """MiMo V2: layers with a window have heads of their own, and values narrower than keys."""
    full = dims.kv_heads * (dims.head_dim + dims.number("v_head_dim"))
    window = dims.number("swa_num_key_value_heads") * (dims.number("swa_head_dim") + dims.number("swa_v_head_dim"))
    return [
        Layer("window", window) if kind == 1 else Layer("full", full) for kind in dims.listed("hybrid_layer_pattern")
    ]


def _stepped(dims: Dimensions) -> list[Layer]:
    """Step 3.5: layers with a window have another grouping of heads; without a list they are the even ones."""
    other = dims.get("attention_other_setting")
    other = other if isinstance(other, dict) else {}
    heads = whole(other.get("num_attention_groups")) or dims.kv_heads
    window = heads * 2 * (whole(other.get("head_dim")) or dims.head_dim)
    return [Layer(kind, window if kind == "window" else values_of(dims)) for kind in kinds_of(dims)]


def _one_head(dims: Dimensions) -> list[Layer]:
    """PLaMo: so many heads share one."""
    return [Layer("full", dims.heads // (dims.number("n_shared_head") or 1) * 2 * dims.head_dim)] * dims.layers


def _all_heads(dims: Dimensions) -> list[Layer]:
    """Older models and Talkie: no grouping, whatever the configuration says."""
    return [Layer("full", dims.heads * 2 * dims.head_dim)] * dims.layers


def _multi_query(dims: Dimensions) -> list[Layer]:
    """StarCoder: one head of keys and values for all."""
    heads = 1 if dims.get("multi_query") in (None, True) else dims.heads
    return [Layer("full", heads * 2 * dims.head_dim)] * dims.layers


def _states_but(is_full: Callable[[int], bool], dims: Dimensions) -> list[Layer]:
    """Recurrent layers, but for those at some places."""
    return layers_of(["full" if is_full(at) else "state" for at in range(dims.layers)], dims)


def _lettered(dims: Dimensions) -> list[Layer]:
    """Nemotron-H: a letter for each block."""
    kinds: dict[str, Kind] = {"M": "state", "*": "full"}
    blocks = dims.listed("hybrid_override_pattern")
    return layers_of([kinds.get(block, "none") for block in blocks], dims) if blocks else usual_layers(dims)


def _indices(dims: Dimensions) -> list[Layer]:
    """LFM2: a list of the layers with attention."""
    full = dims.listed("full_attn_idxs")
    return _states_but(full.__contains__, dims) if full else usual_layers(dims)


def _typed(dims: Dimensions) -> list[Layer]:
    """RecurrentGemma: a list of types that repeats; one head of keys and values, whatever the configuration says."""
    types = dims.listed("block_types")
    if not types:
        return usual_layers(dims)
    return [
        Layer("state", 0, STATES[dims.model](dims))
        if types[at % len(types)] == "recurrent"
        else Layer("window", 2 * dims.head_dim)
        for at in range(dims.layers)
    ]


def _numbered(dims: Dimensions) -> list[Layer]:
    """Kimi Linear: a list of the recurrent layers, counted from 1."""
    linear = dims.linear.get("kda_layers") or []
    return _states_but(lambda at: at + 1 not in linear, dims)


def _grouped(dims: Dimensions) -> list[Layer]:
    """Bailing: the last layer of each group has attention, and so have those behind the last whole group."""
    group = dims.number("layer_group_size")
    if not group:
        return usual_layers(dims)
    last = dims.layers // group * group
    return _states_but(lambda at: (at + 1) % group == 0 or at >= last, dims)


def _periodic(dims: Dimensions) -> list[Layer]:
    """Jamba: one layer of each period has attention."""
    period, offset = dims.number("attn_layer_period"), dims.number("attn_layer_offset")
    return _states_but(lambda at: at % period == offset, dims) if period else usual_layers(dims)


def _plamo(dims: Dimensions) -> list[Layer]:
    """PLaMo 2."""
    count, step = dims.layers, dims.number("mamba_step")
    return layers_of([_plamo_kind(at, step, count) for at in range(count)], dims) if step else usual_layers(dims)


def _plamo_kind(at: int, step: int, count: int) -> Kind:
    full = at == count - 1 if count <= step // 2 else at % step == step // 2
    return "full" if full else "state"


def _both(dims: Dimensions) -> list[Layer]:
    """Falcon H1 and Baichuan M1: each layer has a state beside its keys and values."""
    state, windows = STATES[dims.model](dims), dims.listed("sliding_window_layers")
    return [Layer("window" if at in windows else "full", values_of(dims), state) for at in range(dims.layers)]


def _chunked(dims: Dimensions) -> list[Layer]:
    """Llama 4: three of four layers keep a chunk. mlx-lm's text-only module keeps every token."""
    return [Layer("window" if (at + 1) % 4 else "full", values_of(dims)) for at in range(dims.layers)]


def _states(dims: Dimensions) -> list[Layer]:
    return layers_of(["state"] * dims.layers, dims)


FAMILIES: dict[str, Callable[[Dimensions], list[Layer]]] = {
    "afm7": _reusing, "baichuan_m1": _both, "bailing_hybrid": _grouped, "bailing_moe_linear": _grouped,
    "bailing_moe_v3": _grouped, "deepseek_v32": _indexed, "falcon_h1": _both, "gemma3n_text": _sharing,
    "gemma4_text": _sharing, "glm_moe_dsa": _indexed, "gpt2": _all_heads,
    "gpt_bigcode": _multi_query, "gpt_neox": _all_heads, "gptj": _all_heads, "iquestloopcoder": _looped_window,
    "jamba": _periodic, "llama4": _chunked, "kimi_linear": _numbered, "lfm2": _indices,
    "lfm2_moe": _indices, "longcat_flash": _doubled,
    "longcat_flash_ngram": _doubled, "mamba": _states, "mamba2": _states, "mimo_v2_flash": _two_kinds,
    "minimax_m3_vl": _sparse, "minimax_m3": _sparse, "nanbeige": _looped, "nemotron-nas": _searched,
    "nemotron_h": _lettered, "openelm": _by_layer, "plamo": _one_head, "plamo2": _plamo, "recurrent_gemma": _typed,
    "rwkv7": _states, "step3p5": _stepped, "talkie": _all_heads,
}  # fmt: skip

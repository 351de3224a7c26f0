"""The KV cache by the configuration, beside what mlx-lm makes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.messages.memory import KvSize, KvWindow
from tasks.models.kv_cache import kv_size

if TYPE_CHECKING:
    from mlx.nn.layers.base import Module

pytestmark = pytest.mark.xdist_group("mlx")

MOE = {
    "num_experts": 4, "num_experts_per_tok": 2, "num_shared_experts": 1, "moe_intermediate_size": 64, "n_group": 1,
    "topk_group": 1, "first_k_dense_replace": 1, "routed_scaling_factor": 1.0, "norm_topk_prob": True,
    "n_routed_experts": 4, "n_shared_experts": 1, "moe_shared_expert_intermediate_size": 64, "num_local_experts": 4,
    "moe_layer_freq": 1, "scoring_func": "sigmoid", "topk_method": "noaux_tc", "attention_bias": False,
}  # fmt: skip
COMMON = {
    "vocab_size": 100, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 32, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}  # fmt: skip
LATENT = {
    **MOE, "kv_lora_rank": 32, "q_lora_rank": 48, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 24,
}  # fmt: skip
WINDOWS = {
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
    "sliding_window": 64,
}  # fmt: skip
DELTA = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 24,
    "linear_conv_kernel_dim": 4, "linear_allow_neg_eigval": True, "attention_bias": False,
    "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
}  # fmt: skip
MAMBA2 = {
    "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 32, "mamba_d_conv": 4, "mamba_n_groups": 1,
    "mamba_proj_bias": False, "mamba_conv_bias": True,
}  # fmt: skip
YARN = {
    "type": "yarn", "factor": 4.0, "original_max_position_embeddings": 4096, "mscale": 1.0, "mscale_all_dim": 1.0,
    "beta_fast": 32, "beta_slow": 1,
}  # fmt: skip
DEFAULT_ROPE = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0}
BOTH_ROPES = {"rope_parameters": {"full_attention": DEFAULT_ROPE, "sliding_attention": DEFAULT_ROPE}}

#: Kinds of models by what their layers keep; all other fields are those of ``COMMON``.
MODELS: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama with windows": {"model_type": "llama", **WINDOWS},
    "qwen3": {},
    "gemma2": {"query_pre_attn_scalar": 32},
    "gemma3_text": {"sliding_window": 64, "num_hidden_layers": 7},
    "gemma3": {
        "text_config": {"model_type": "gemma3_text", "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 6}
    },
    "gemma3n": {
        "text_config": {
            **COMMON, **WINDOWS, "model_type": "gemma3n_text", "num_kv_shared_layers": 1,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention", "full_attention"],
            "num_hidden_layers": 5, "activation_sparsity_pattern": [0.0] * 5, "intermediate_size": [256] * 5,
            "hidden_size_per_layer_input": 16, "altup_num_inputs": 2, "altup_coef_clip": 120.0, "altup_active_idx": 0,
            "altup_correct_scale": True, "laurel_rank": 8, "rope_local_base_freq": 10000.0, "final_logit_softcapping": 30.0,
            "vocab_size_per_layer_input": 100,
        }
    },
    "gemma4_text": {
        "num_hidden_layers": 10, "num_kv_shared_layers": 4, "sliding_window": 64, "global_head_dim": 64,
        "hidden_size_per_layer_input": 16, "vocab_size_per_layer_input": 100,
    },
    "gpt_oss": {**WINDOWS, "num_local_experts": 4},
    "cohere2": {"sliding_window": 64, "layer_norm_eps": 1e-5, "logit_scale": 1.0},
    "exaone4": {"sliding_window": 64, "sliding_window_pattern": "LLLG", "rope_scaling": {"type": "default"}},
    "olmo3": {"sliding_window": 64},
    "plamo3": {"sliding_window": 64, "sliding_window_pattern": 2},
    "muse_glimmer": WINDOWS,
    "spark2_5": {**WINDOWS, **BOTH_ROPES},
    "mellum": {**MOE, **WINDOWS, **BOTH_ROPES},
    "deepseek_v2": {**LATENT, "rope_scaling": YARN},
    "deepseek_v3": {**LATENT, "rope_scaling": None},
    "deepseek_v32": {**LATENT, "rope_scaling": None, "index_head_dim": 16, "index_n_heads": 2, "index_topk": 8},
    "kimi_k25": {"text_config": {**COMMON, **LATENT, "model_type": "kimi_k2", "rope_scaling": None}},
    "mistral4": {
        **LATENT,
        "rope_parameters": {**DEFAULT_ROPE, "llama_4_scaling_beta": 0.1, "original_max_position_embeddings": 4096},
    },
    "bailing_hybrid": {**LATENT, "layer_group_size": 2, "group_norm_size": 2},
    "bailing_hybrid v3": {
        **LATENT, "model_type": "bailing_hybrid", "architectures": ["BailingMoeV3ForCausalLM"], "layer_group_size": 2,
        "short_conv_kernel_size": 4,
    },
    "longcat_flash": {
        **LATENT, "num_layers": 4, "ffn_hidden_size": 256, "moe_topk": 2, "expert_ffn_hidden_size": 64,
        "zero_expert_num": 1, "zero_expert_type": "identity", "attention_method": "MLA", "mla_scale_q_lora": True,
        "mla_scale_kv_lora": True,
    },
    "kimi_linear": {
        **LATENT, "num_key_value_heads": 4, "model_max_length": 4096,
        "linear_attn_config": {"num_heads": 4, "head_dim": 32, "kda_layers": [1, 2, 3], "full_attn_layers": [4]},
    },
    "qwen3_next": {
        **MOE, **DELTA, "layer_types": None, "decoder_sparse_step": 1, "shared_expert_intermediate_size": 64,
        "mlp_only_layers": [], "partial_rotary_factor": 0.5, "norm_topk_prob": True,
    },
    "olmo_hybrid": DELTA,
    "mamba": {"state_size": 16, "conv_kernel": 4, "use_bias": False, "use_conv_bias": True, "time_step_rank": 8},
    "mamba2": {
        "num_heads": 8, "head_dim": 16, "state_size": 32, "conv_kernel": 4, "n_groups": 2, "use_bias": False,
        "use_conv_bias": True, "layer_norm_epsilon": 1e-5, "time_step_limit": [0.0, 10.0], "time_step_rank": 8,
    },
    "nemotron_h": {
        "mamba_num_heads": 8, "mamba_head_dim": 16, "ssm_state_size": 32, "conv_kernel": 4, "n_groups": 2,
        "hybrid_override_pattern": "M*-M", "mamba_proj_bias": False, "mlp_bias": False, "use_bias": False,
        "use_conv_bias": True, "layer_norm_epsilon": 1e-5, "attention_bias": False, "time_step_limit": [0.0, 10.0],
        "residual_in_fp32": False,
    },
    "granitemoehybrid": {
        **MAMBA2, "layer_types": ["mamba", "attention", "mamba", "mamba"], "embedding_multiplier": 1.0,
        "attention_multiplier": 1.0, "logits_scaling": 1.0, "residual_multiplier": 1.0, "num_local_experts": 4,
        "num_experts_per_tok": 2, "shared_intermediate_size": 64, "attention_bias": False,
    },
    "falcon_h1": {**MAMBA2, "mamba_d_ssm": 128},
    "jamba": {
        "mamba_d_conv": 4, "mamba_d_state": 16, "mamba_expand": 2, "attn_layer_period": 2, "attn_layer_offset": 1,
        "expert_layer_period": 2, "expert_layer_offset": 1, "num_experts": 4, "num_experts_per_tok": 2, "head_dim": None,
    },
    "recurrent_gemma": {
        "attention_bias": False, "conv1d_width": 4, "logits_soft_cap": 30.0, "attention_window_size": 64,
        "embeddings_scale_by_sqrt_dim": True, "block_types": ["recurrent", "recurrent", "attention"],
    },
    "rwkv7": {
        "norm_eps": 1e-5, "a_low_rank_dim": 16, "v_low_rank_dim": 16, "gate_low_rank_dim": 16, "decay_low_rank_dim": 16,
    },
    "lfm2": {
        "norm_eps": 1e-5, "conv_bias": False, "conv_L_cache": 3, "full_attn_idxs": [1, 3], "block_dim": 128,
        "block_ff_dim": 256, "block_multiple_of": 32, "block_ffn_dim_multiplier": 1.0, "block_auto_adjust_ff_dim": False,
        "head_dim": None,
    },
    "baichuan_m1": {"sliding_window": 64, "sliding_window_layers": [0, 2], "conv_window": 2, "head_dim": None},
    "gear": {
        "layer_types": ["sliding_attention", "full_attention", "conv_mixer", "full_attention"], "sliding_window": 64,
    },
    "gptj": {"num_key_value_heads": None, "n_embd": 128, "n_positions": 4096, "n_head": 4, "rotary_dim": 16, "n_layer": 4},
    "gpt_bigcode": {
        "n_embd": 128, "n_positions": 4096, "n_head": 4, "n_layer": 4, "n_inner": 256, "layer_norm_epsilon": 1e-5,
        "num_key_value_heads": 1,
    },
    "openelm": {
        "num_transformer_layers": 3, "model_dim": 128, "ffn_dim_divisor": 8, "num_query_heads": [2, 4, 4],
        "num_kv_heads": [1, 2, 4], "ffn_multipliers": [1.0, 1.0, 1.0],
    },
    "nanbeige": {"num_loops": 2, "skip_loop_final_norm": True},
    "iquestloopcoder": {"loop_num": 2, "loop_window_size": 64},
    "mimo_v2_flash": {
        **MOE, "hybrid_layer_pattern": [0, 1, 0, 1], "moe_layer_freq": [0, 1, 0, 1], "sliding_window_size": 64,
        "add_swa_attention_sink_bias": True, "add_full_attention_sink_bias": False, "layernorm_epsilon": 1e-5,
        "swa_rope_theta": 1000.0, "swa_num_attention_heads": 4, "swa_num_key_value_heads": 4, "swa_head_dim": 32,
        "swa_v_head_dim": 16, "v_head_dim": 24, "partial_rotary_factor": 0.5,
    },
    "step3p5": {
        "num_attention_groups": 2, "sliding_window": 64,
        "attention_other_setting": {"num_attention_heads": 8, "num_attention_groups": 4}, "moe_num_experts": 4, "moe_top_k": 2,
        "moe_intermediate_size": 64, "share_expert_dim": 64, "moe_layers_enum": "1,2,3",
    },
    "talkie": {},
    "llama4_text": {
        "intermediate_size_mlp": 256, "no_rope_layers": [0, 0, 1, 1], "use_qk_norm": True,
    },
}  # fmt: skip


def _build(name: str) -> tuple[Module, dict[str, Any]]:
    """The model, with random weights that are never computed."""
    import mlx.core as mx
    from mlx_lm.utils import _get_classes

    given = MODELS[name]
    config = {"model_type": name, **({"vocab_size": 100} if "text_config" in given else COMMON), **given}
    config = {field: value for field, value in config.items() if value is not None or field == "rope_scaling"}
    model_class, arguments = _get_classes(config)
    model: Module = model_class(arguments.from_dict(config))
    model.set_dtype(mx.float16)
    return model, config


@pytest.mark.parametrize("name", MODELS)
def test_an_estimate_is_what_mlx_lm_makes(name: str) -> None:
    """Within five percent for requests of 4,096 and 32,768 tokens, for every kind of layer."""
    from tasks.engine.model.measure import measure_cache

    model, config = _build(name)
    measured, estimate = measure_cache(model), kv_size(config)
    assert estimate is not None
    for tokens in (4096, 32768):
        assert estimate.row_bytes(tokens) == pytest.approx(measured.row_bytes(tokens), rel=0.05), tokens


@pytest.mark.parametrize(
    "name", ["llama", "gemma3_text", "gpt_oss", "deepseek_v3", "mamba2", "granitemoehybrid", "gemma4_text"]
)
@pytest.mark.parametrize("tokens", [300, 4096])
def test_what_is_measured_is_what_a_batch_holds(name: str, tokens: int) -> None:
    """Two rows side by side, once their prompt is in and they have begun to answer, by the shapes of their arrays."""
    import mlx.core as mx
    from mlx_lm.models.cache import make_prompt_cache

    from tasks.engine.model.measure import measure_cache

    model, _ = _build(name)
    cache = [layer.merge([layer, layer]) for layer in make_prompt_cache(model)]
    for count in (tokens - 2, 1, 1):
        model(mx.zeros((2, count), mx.int32), cache=cache)
    held = sum(layer.nbytes for layer in cache)
    assert 2 * measure_cache(model).row_bytes(tokens) == pytest.approx(held, rel=0.05)


GEMMA_3_27B = {
    "model_type": "gemma3",
    "text_config": {
        "model_type": "gemma3_text", "hidden_size": 5376, "num_hidden_layers": 62, "num_attention_heads": 32,
        "num_key_value_heads": 16, "head_dim": 128, "sliding_window": 1024,
    },
}  # fmt: skip
GEMMA_3_4B = {
    "model_type": "gemma3",
    "text_config": {
        "model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34,
        "sliding_window": 1024,
    },
}  # fmt: skip
GPT_OSS_20B = {
    "model_type": "gpt_oss", "hidden_size": 2880, "num_hidden_layers": 24, "num_attention_heads": 64,
    "num_key_value_heads": 8, "head_dim": 64, "sliding_window": 128,
    "layer_types": ["sliding_attention", "full_attention"] * 12,
}  # fmt: skip
DEEPSEEK_V2_LITE = {
    "model_type": "deepseek_v2", "num_hidden_layers": 27, "num_attention_heads": 16, "kv_lora_rank": 512,
    "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "hidden_size": 2048,
}  # fmt: skip
LLAMA_8B = {
    "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8,
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "size"),
    [
        (LLAMA_8B, KvSize(bytes_per_token=32 * 8 * 128 * 2 * 2)),
        ({**LLAMA_8B, "model_type": "mistral", "sliding_window": 4096}, KvSize(bytes_per_token=32 * 8 * 128 * 2 * 2)),
        (GEMMA_3_27B, KvSize(bytes_per_token=81_920, windows=(KvWindow(1024, 425_984),))),
        (GEMMA_3_4B, KvSize(bytes_per_token=20_480, windows=(KvWindow(1024, 118_784),))),
        (GPT_OSS_20B, KvSize(bytes_per_token=24_576, windows=(KvWindow(128, 24_576),))),
        (DEEPSEEK_V2_LITE, KvSize(bytes_per_token=276_480)),
        ({**DEEPSEEK_V2_LITE, "model_type": "deepseek_v3"}, KvSize(bytes_per_token=27 * 576 * 2)),
        ({"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64}, KvSize(bytes_per_token=2 * 4 * 16 * 2 * 2)),
        ({"model_type": "mamba"}, None),
        ({"model_type": "deepseek_v3", "num_hidden_layers": 5}, None),
        ({"num_hidden_layers": 10**12, "num_attention_heads": 4, "hidden_size": 64}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_the_cache_of_known_models(config: dict[str, Any], size: KvSize | None) -> None:
    """At their published dimensions; where a dimension is missing nothing is made up."""
    assert kv_size(config) == size


def test_a_long_request_to_a_model_with_windows_is_counted_as_it_is() -> None:
    """32,768 tokens of Gemma 3 27B take 3.1 GB; were every layer to keep every token, 16.6."""
    size = kv_size(GEMMA_3_27B)
    assert size is not None
    assert size.row_bytes(32768) == 32768 * 81_920 + 1024 * 425_984
    assert size.row_bytes(100) < size.row_bytes(1000) < size.row_bytes(4096)


@given(tokens=st.integers(1, 10**6), more=st.integers(0, 10**4))
def test_a_longer_row_never_takes_less(tokens: int, more: int) -> None:
    """And wider values never do."""
    size = KvSize(
        bytes_per_token=3, bytes_per_row=5, wide_bytes_per_row=7, windows=(KvWindow(1000, 2), KvWindow(64, 9))
    )
    assert size.row_bytes(tokens) <= size.row_bytes(tokens + more)
    assert size.row_bytes(tokens) < size.times(2).row_bytes(tokens) < 2 * size.row_bytes(tokens)

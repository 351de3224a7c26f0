"""A model's configuration as numbers, under every name that authors use for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.messages.memory import STEP_TOKENS
from tasks.models.reading import whole

if TYPE_CHECKING:
    from collections.abc import Mapping

_LAYERS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers", "num_transformer_layers")
_HEADS = ("num_attention_heads", "n_heads", "n_head", "num_heads")
_KV_HEADS = ("num_key_value_heads", "num_kv_heads", "n_kv_heads", "kv_n_heads", "num_attention_groups")
_HIDDEN = ("hidden_size", "d_model", "n_embd", "hidden_dim", "model_dim")
_HEAD_DIM = ("head_dim", "attention_head_dim", "kv_channels", "hidden_size_per_head")
_WINDOW = (
    "sliding_window",
    "sliding_window_size",
    "window_size",
    "attention_window_size",
    "loop_window_size",
    "attention_chunk_size",
)

#: No model has more; a damaged file may say so.
MOST_LAYERS = 4096
#: Names of one module of mlx-lm, and the name under which it is known here.
_ALIASES = {
    "gemma3": "gemma3_text", "gemma3n": "gemma3n_text", "gemma4": "gemma4_text", "gemma4_unified": "gemma4_text",
    "mistral": "llama", "iquestcoder": "llama", "xverse": "llama", "kimi_k2": "deepseek_v3", "kimi_k25": "deepseek_v3",
    "kimi_vl": "deepseek_v3", "joyai_llm_flash": "deepseek_v3", "falcon_mamba": "mamba", "lfm2-vl": "lfm2",
    "lfm2_vl": "lfm2", "kimi_k3": "kimi_linear", "qwen3_5_text": "qwen3_5", "qwen3_5_moe": "qwen3_5",
    "qwen3_5_moe_text": "qwen3_5", "muse_spark_text": "muse_spark",
}  # fmt: skip
#: Windows where the files leave them out.
_WINDOW_TOKENS = {
    "afmoe": 2048, "cohere2": 4096, "gemma3_text": 512, "gemma3n_text": 512, "gemma4_text": 512, "gpt_oss": 128,
    "gear": 512, "iquestloopcoder": 64, "laguna": 512, "muse_glimmer": 2048, "plamo3": 2048, "step3p5": 512,
}  # fmt: skip
#: Their caches drop what is before a chunk, and then grow by a step.
_CHUNKED = frozenset({"llama4"})
#: Dimensions where the files leave them out: those of transformers, whose nested configs are saved without their defaults.
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "gemma3_text": {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "num_hidden_layers": 26},
    "gemma3n_text": {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 256, "num_hidden_layers": 35},
    "gemma4_text": {"num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256, "global_head_dim": 512},
    "bailing_moe_v3": {"layer_group_size": 4},
    "falcon_h1": {
        "mamba_d_ssm": 1536, "mamba_d_state": 128, "mamba_d_conv": 4, "mamba_n_groups": 1, "mamba_n_heads": 24,
        "mamba_d_head": 64,
    },
    "plamo2": {
        "mamba_step": 2, "mamba_d_conv": 4, "mamba_d_state": 64, "mamba_num_heads": 64, "hidden_size_per_head": 128,
    },
    "gpt_oss": {"head_dim": 64},
    "laguna": {"head_dim": 128},
    "nanochat": {"num_attention_heads": 10, "num_key_value_heads": 10},
    "phi": {"num_attention_heads": 32, "hidden_size": 2560, "num_hidden_layers": 32},
    "phi-msft": {"num_heads": 32, "model_dim": 2560, "num_layers": 32},
    "plamo": {"n_shared_head": 8},
    "talkie": {"head_dim": 128},
    "deepseek_v32": {"index_head_dim": 128},
    "qwen3_5": {"full_attention_interval": 4},
    "qwen3_next": {"full_attention_interval": 4},
    "youtu_llm": {"num_attention_heads": 16, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128},
}  # fmt: skip


class Dimensions:
    """A configuration's fields, under every name that authors use for them."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        nested_text = config.get("text_config")
        found = nested_text if isinstance(nested_text, dict) else config
        name = str(found.get("model_type") or config.get("model_type"))
        if name == "bailing_hybrid" and "BailingMoeV3ForCausalLM" in (found.get("architectures") or ()):
            name = "bailing_moe_v3"
        # The whole model's type tells these two apart, whose text part is of one type.
        whole_model = str(config.get("model_type"))
        self.model = "llama4" if whole_model == "llama4" else _ALIASES.get(name, name)
        nested = {
            key: found.get(key) for key in ("attn_config", "linear_attn_config") if isinstance(found.get(key), dict)
        }
        self.linear: Mapping[str, Any] = nested.get("linear_attn_config") or {}
        given = {
            **(nested.get("attn_config") or {}),
            **{key: value for key, value in found.items() if value is not None},
        }
        self._fields = {**_DEFAULTS.get(self.model, {}), **given}

    def number(self, *names: str, default: int = 0) -> int:
        """The first of these fields that has a positive number."""
        return next((value for name in names if (value := whole(self._fields.get(name)))), default)

    def get(self, name: str) -> Any:
        """A field as it is."""
        return self._fields.get(name)

    def listed(self, name: str) -> list[Any]:
        """A field that is a list, or a text of one character for each entry; empty where it is neither."""
        value = self._fields.get(name)
        return list(value) if isinstance(value, list | str) else []

    @property
    def layers(self) -> int:
        """The number of layers; 0 where the number is no model's."""
        count = self.number(*_LAYERS)
        return count if count <= MOST_LAYERS else 0

    @property
    def head_dim(self) -> int:
        """The width of a head."""
        return self.number(*_HEAD_DIM) or self.number(*_HIDDEN) // (self.number(*_HEADS) or 1)

    @property
    def kv_heads(self) -> int:
        """Heads that keep keys and values."""
        return self.number(*_KV_HEADS) or self.number(*_HEADS)

    @property
    def window(self) -> int:
        """The last tokens that a layer with a window keeps."""
        tokens = self.number(*_WINDOW, default=_WINDOW_TOKENS.get(self.model, 0))
        return tokens + STEP_TOKENS if tokens and self.model in _CHUNKED else tokens

    @property
    def heads(self) -> int:
        """Heads of queries."""
        return self.number(*_HEADS)

    @property
    def hidden(self) -> int:
        """The width of the model."""
        return self.number(*_HIDDEN)

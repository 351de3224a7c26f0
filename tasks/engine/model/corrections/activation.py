"""The activation function of a model's perceptrons, where mlx-lm 0.32.2 has another one written into its code.

Its modules for these types compute silu whatever config.json says: a llama that was trained with relu (ReluLLaMA) answers
nonsense without an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.errors import ModelLoadFailed

if TYPE_CHECKING:
    from tasks.engine.files.folder import ModelFolder

FIELD = "hidden_act"
SILU = frozenset({"silu", "swish"})
#: Types whose module computes silu alone; transformers computes what the field says.
SILU_ALONE = frozenset(
    {
        "cohere",
        "cohere2",
        "deepseek_v2",
        "deepseek_v3",
        "ernie4_5",
        "exaone4",
        "glm",
        "glm4",
        "granite",
        "llama",
        "ministral3",
        "mistral",
        "mixtral",
        "olmo2",
        "olmo3",
        "phi3",
        "qwen2",
        "qwen2_moe",
        "qwen3",
        "qwen3_moe",
        "seed_oss",
        "smollm3",
        "stablelm",
    }
)


def check_activation(folder: ModelFolder) -> None:
    """Refuse a model that would be computed with another function than it was trained with.

    Raises:
        ModelLoadFailed: it would be.
    """
    nested = folder.config.get("text_config")
    config: dict[str, Any] = nested if isinstance(nested, dict) else folder.config
    kind, name = config.get("model_type", folder.config["model_type"]), config.get(FIELD)
    if kind in SILU_ALONE and isinstance(name, str) and name not in SILU:
        raise ModelLoadFailed(
            f"{folder.path / 'config.json'}: {FIELD} is {name!r}, and mlx-lm computes silu for every model of type {kind!r}: its "
            "answers would be nonsense; take a model with silu"
        )

"""The context that a model's files promise, as authors write it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from tasks.models.context import DEFAULTS, learned_positions, read_context
from tasks.models.files import read_model_size

if TYPE_CHECKING:
    from pathlib import Path

#: Models whose own configuration has the part that this is a default of.
PARENTS = ("gemma3", "gemma3n", "gemma4")
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


@pytest.mark.parametrize(
    ("config", "tokens", "said_by"),
    [
        ({"max_position_embeddings": 100}, 100, "max_position_embeddings"),
        ({"max_position_embeddings": 32768.0}, 32768, "max_position_embeddings"),
        ({"n_positions": 1024, "n_ctx": 512}, 1024, "n_positions"),
        ({"n_ctx": 60, "text_config": None}, 60, "n_ctx"),
        ({"model_max_length": 1048576}, 1048576, "model_max_length"),
        (
            {"model_type": "cohere", "max_position_embeddings": 8192, "model_max_length": 131072},
            *(131072, "model_max_length"),
        ),
        ({"model_type": "cohere", "max_position_embeddings": 8192}, 8192, "max_position_embeddings"),
        ({"max_position_embeddings": 8192, "model_max_length": 131072}, 8192, "max_position_embeddings"),
        ({"max_context_length": 2048}, 2048, "max_context_length"),
        ({"block_size": 512}, 512, "block_size"),
        ({"seq_length": 8192}, 8192, "seq_length"),
        ({"text_config": {"max_position_embeddings": 70}}, 70, "text_config.max_position_embeddings"),
        ({"max_position_embeddings": 4096, "text_config": {"max_position_embeddings": 70}}, 70, "text_config"),
        ({"llm_config": {"max_position_embeddings": 70}}, 70, "llm_config.max_position_embeddings"),
        ({"thinker_config": {"text_config": {"n_ctx": 70}}}, 70, "thinker_config.text_config.n_ctx"),
        ({"max_position_embeddings": True, "n_ctx": 60}, 60, "n_ctx"),
        ({"max_position_embeddings": None, "n_ctx": "x", "seq_length": -5, "block_size": 8}, 8, "block_size"),
        ({"max_position_embeddings": "32768"}, 32768, "max_position_embeddings"),
        ({"max_position_embeddings": "1e5"}, 100_000, "max_position_embeddings"),
        ({"max_position_embeddings": "nan", "n_ctx": 60}, 60, "n_ctx"),
        ({"max_position_embeddings": 1e30}, 1 << 20, "max_position_embeddings, which sets no bound"),
        ({"max_position_embeddings": 10**40, "rope_scaling": YARN}, 1 << 20, "which sets no bound"),
        ({"model_max_length": 1000000000000000019884624838656}, 1 << 20, "model_max_length, which sets no bound"),
        ({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}, 131072, "model_type gemma3_text"),
        ({"max_position_embeddings": 32768, "rope_scaling": YARN}, 131072, "rope_scaling.factor"),
        ({"max_position_embeddings": 40960, "rope_scaling": YARN}, 131072, "rope_scaling.factor"),
        ({"max_position_embeddings": 163840, "rope_scaling": {**YARN, "factor": 2}}, 163840, "max_position"),
        ({"max_position_embeddings": 2048, "rope_parameters": {"rope_type": "yarn", "factor": 4}}, 8192, "rope_param"),
        (
            {
                "max_position_embeddings": 2048,
                "rope_parameters": {"full_attention": {"rope_type": "yarn", "factor": 2.0}, "sliding_attention": {}},
            },
            4096,
            "rope_parameters.factor",
        ),
        (
            {"text_config": {"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 2.0}}},
            8192,
            "rope_scaling.factor",
        ),
        ({"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "llama3", "factor": 32.0}}, 131072, "max"),
        ({"max_position_embeddings": 131072, "rope_scaling": {"type": "longrope", "factor": 32.0}}, 131072, "max"),
        ({"max_position_embeddings": 131072, "rope_scaling": {"type": "mrope", "mrope_section": []}}, 131072, "max"),
        (
            {
                "text_config": {
                    "model_type": "gemma3_text",
                    "max_position_embeddings": 131072,
                    "rope_scaling": {"rope_type": "linear", "factor": 8.0},
                }
            },
            131072,
            "max_position_embeddings",
        ),
        ({"max_position_embeddings": 2048, "rope_scaling": {"type": "yarn", "factor": None}}, 2048, "max"),
        ({"max_position_embeddings": 2048, "rope_scaling": {"type": "yarn", "factor": 1e400}}, 2048, "max"),
        ({"max_position_embeddings": 2048, "rope_scaling": [1]}, 2048, "max"),
        (
            {"max_position_embeddings": 2048, "rope_scaling": {}, "rope_parameters": {"type": "linear", "factor": 2}},
            *(4096, "rope_parameters.factor"),
        ),
    ],
)
def test_config_json_says_it(tmp_path: Path, config: dict[str, Any], tokens: int, said_by: str) -> None:
    """Under every name, in the language model's own part first, as a float too, and times the factor of its scaling."""
    found = read_context(tmp_path, config)
    assert found is not None
    assert found.tokens == tokens
    assert said_by in found.said_by


@pytest.mark.parametrize("model_type", [name for name in DEFAULTS if name.endswith("_text") or name not in PARENTS])
def test_defaults_are_those_of_transformers(model_type: str) -> None:
    """It leaves them out of what it writes for the part of a larger model."""
    assert CONFIG_MAPPING[model_type]().max_position_embeddings == DEFAULTS[model_type]


@pytest.mark.parametrize(("bound", "tokens"), [(2048, 2048), (2048.0, 2048), (1e30, None), (None, None), ("x", None)])
def test_else_the_tokenizer_says_it(tmp_path: Path, bound: object, tokens: int | None) -> None:
    """A recurrent model has no field of its own; transformers' huge number means that there is no bound."""
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": bound}))
    found = read_context(tmp_path, {"model_type": "mamba"})
    assert (found.tokens if found is not None else None) == tokens


@pytest.mark.parametrize(("bound", "tokens"), [(16384, 16384), (65536, 65536), (2048, 65536), (1e30, 65536)])
def test_the_tokenizer_tells_whether_the_factor_is_in_the_field_already(
    tmp_path: Path, bound: float, tokens: int
) -> None:
    """Deepseek Coder has the scaled length in max_position_embeddings, others have the length before the scaling."""
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": bound}))
    config = {"max_position_embeddings": 16384, "rope_scaling": {"type": "linear", "factor": 4.0}}
    found = read_context(tmp_path, config)
    assert found is not None
    assert found.tokens == tokens


def test_a_field_without_a_bound_leaves_it_to_the_tokenizer(tmp_path: Path) -> None:
    """Which says how long the authors' own prompts may be."""
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 2048}))
    found = read_context(tmp_path, {"max_position_embeddings": 1e30})
    assert found is not None
    assert (found.tokens, found.said_by) == (2048, "tokenizer_config.json: model_max_length")


def test_nothing_says_it(tmp_path: Path) -> None:
    """Then it is not known, here and in the model's size."""
    (tmp_path / "config.json").write_text("{}")
    assert read_context(tmp_path, {}) is None
    assert read_model_size(tmp_path).context_tokens is None


def test_learned_positions_bound_what_a_catalogue_may_say() -> None:
    """GPT-2 has a vector for each position; rotary models have not."""
    assert learned_positions({"model_type": "gpt2", "n_positions": 1024}) == 1024
    assert learned_positions({"model_type": "llama", "max_position_embeddings": 1024}) is None

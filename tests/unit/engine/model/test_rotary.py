"""Rotary positions of models that transformers 5 has written, as mlx-lm's code gets them."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx_lm import utils
from mlx_lm.models.rope_utils import initialize_rope
from transformers import AutoConfig

from benchmarks.models.tiny import config as tiny_config
from benchmarks.parts.tiny_model import make_tiny_model
from tasks.engine.files.folder import read_folder
from tasks.engine.model.corrections.rotary import exact_frequencies, rotary_fields
from tasks.engine.model.loading import load_weights
from tasks.messages.engine import EngineConfig

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("mlx")

LLAMA_3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip
LONGROPE = {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [2.0] * 48}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192}
#: What authors wrote before transformers 5, by type.
WRITTEN: dict[str, dict[str, Any]] = {
    "llama": {"rope_theta": 500000.0, "rope_scaling": LLAMA_3},
    "qwen2": {"rope_theta": 1234567.0, "rope_scaling": YARN},
    "qwen3": {"rope_theta": 1234567.0},
    "qwen3_moe": {"rope_theta": 1234567.0},
    "gemma2": {"rope_theta": 54321.0},
    "gemma3_text": {
        "rope_theta": 54321.0,
        "rope_local_base_freq": 4321.0,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    },
    "gpt_oss": {"rope_theta": 54321.0, "rope_scaling": YARN},
    "mistral": {"rope_theta": 1234567.0},
    "phi3": {"rope_theta": 54321.0, "original_max_position_embeddings": 2048, "rope_scaling": LONGROPE},
    "smollm3": {"rope_theta": 1234567.0},
    "gpt_neox": {"rotary_emb_base": 54321, "rotary_pct": 0.5},
    "stablelm": {"rope_theta": 54321.0, "partial_rotary_factor": 0.5},
    "lfm2": {"rope_theta": 54321.0},
}


def arguments(config: dict[str, Any]) -> Any:
    """What mlx-lm's code for this model is given."""
    _, made = utils._get_classes(config)
    return made.from_dict({"num_experts": 4, "head_dim": 16, "block_dim": 64, **config})


@pytest.mark.parametrize("model_type", WRITTEN)
def test_what_transformers_has_moved_is_read(model_type: str) -> None:
    """mlx-lm's module gets the same base, share and scaling from the file as it was and as transformers writes it now."""
    written = WRITTEN[model_type]
    moved = json.loads(AutoConfig.for_model(model_type, **deepcopy(written)).to_json_string())
    assert "rope_theta" not in moved
    wanted, found = (
        arguments({**moved, **written, "rope_parameters": None}),
        arguments({**moved, **rotary_fields(moved)}),
    )
    for name, value in written.items():
        assert getattr(wanted, name) == value
        if name == "rope_scaling":
            assert value.items() <= found.rope_scaling.items()
        else:
            assert getattr(found, name) == value


def test_a_part_of_a_larger_model_is_read(tmp_path: Path) -> None:
    """Of models that also see, the language model's part has them; all else in it stays."""
    part = {"model_type": "gemma3_text", "vocab_size": 9, "rope_parameters": {"full_attention": {"rope_theta": 5.0}}}
    config = {"model_type": "gemma3", "text_config": part}
    assert rotary_fields(config) == {
        "text_config": {**part, "rope_theta": 5.0, "rotary_emb_base": 5.0, "rope_scaling": None}
    }


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "llama"},
        {"model_type": "llama", "rope_parameters": None},
        {"model_type": "gemma4_text", "rope_parameters": {"full_attention": {"partial_rotary_factor": 0.25}}},
        {"model_type": "gemma3", "text_config": {"rope_parameters": []}},
    ],
)
def test_nothing_is_added_where_nothing_is_missing(config: dict[str, Any]) -> None:
    """Not for a module that reads the new field, say."""
    assert rotary_fields(config) == {}


@pytest.mark.parametrize("name", ["rope_scaling", "rope_parameters"])
def test_the_length_that_yarn_scales_is_the_context_where_the_file_leaves_it_out(name: str) -> None:
    """As in transformers; mlx-lm would take 4,096."""
    config = {"model_type": "llama", "max_position_embeddings": 32768, name: {"rope_type": "yarn", "factor": 4.0}}
    assert rotary_fields(config)["rope_scaling"]["original_max_position_embeddings"] == 32768
    config["max_position_embeddings"] = None
    assert "original_max_position_embeddings" not in (rotary_fields(config).get("rope_scaling") or {})


@pytest.mark.parametrize("truncate", [False, True])
def test_the_frequencies_of_gpt_oss(truncate: bool) -> None:
    """Those of its authors' own code, and mlx-lm's for a file that has the range rounded."""
    scaling = {
        "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": truncate,
        "original_max_position_embeddings": 4096,
    }  # fmt: skip
    model = nn.Module()
    model.rope = initialize_rope(64, 150000, False, scaling)
    mlx_lms = np.array(model.rope._freqs)
    exact_frequencies(model, {"rope_theta": 150000, "rope_scaling": scaling}, 131072)
    ours = np.array(model.rope._freqs)
    lengths = 150000 ** (np.arange(0, 64, 2) / 64)
    low, high = (32 * np.log(4096 / (turns * 2 * np.pi)) / np.log(150000) for turns in (32, 1))
    mask = 1 - np.clip((np.arange(32) - low) / (high - low), 0, 1)
    authors = 1 / (lengths * 32) * (1 - mask) + 1 / lengths * mask
    assert np.allclose(1 / ours, authors, rtol=1e-5) is not truncate
    assert np.array_equal(ours, mlx_lms) is truncate
    assert np.abs(authors * mlx_lms - 1).max() > 0.4


@pytest.mark.parametrize("name", ["type", "rope_type"])
@pytest.mark.parametrize("model_type", ["llama", "phi3", "internlm2", "internlm3", "deepseek"])
def test_a_scaling_is_read_by_either_name_of_its_kind(model_type: str, name: str) -> None:
    """Some modules know one name alone, or want a float: they raised KeyError, AssertionError or ValueError."""
    _, described = tiny_config(model_type)
    described["rope_scaling"] = {
        name: "linear",
        "factor": 2,
        **({"long_factor": [1.0]} if model_type == "phi3" else {}),
    }
    completed = {**described, **rotary_fields(described)}
    model_class, made = utils._get_classes(completed)
    scales = {part.scale for _, part in model_class(made.from_dict(completed)).named_modules() if type(part) is nn.RoPE}
    assert scales <= {0.5}


@pytest.mark.parametrize(("context_tokens", "factor"), [(4096, 3.0), (4097, 7.0)])
def test_longrope_has_the_factors_of_its_context(context_tokens: int, factor: float) -> None:
    """mlx-lm has those of long ones always; llama.cpp and vLLM go by the context that the model is served with."""
    scaling = {
        "type": "longrope", "original_max_position_embeddings": 4096, "short_factor": [3.0] * 4, "long_factor": [7.0] * 4,
    }  # fmt: skip
    model = nn.Module()
    model.rope = initialize_rope(8, 10.0, False, scaling, 131072)
    exact_frequencies(model, {"rope_theta": 10.0, "rope_scaling": scaling}, context_tokens)
    assert np.allclose(np.array(model.rope._freqs), factor * 10.0 ** (np.arange(0, 8, 2) / 8))


def test_what_the_file_says_stays() -> None:
    """A field of the older name goes before the new one."""
    config = {"model_type": "llama", "rope_theta": 1.0, "rotary_emb_base": 1.0, "rope_parameters": {"rope_theta": 2.0}}
    assert rotary_fields(config) == {"rope_scaling": None}


def test_a_module_that_has_no_default_is_told_that_there_is_no_scaling() -> None:
    """llama4's fails without."""
    moved = json.loads(AutoConfig.for_model("llama4").to_json_string())
    assert arguments({**moved, **rotary_fields(moved)}).text_config.rope_scaling is None


def test_a_model_computes_the_same_from_either_file(tmp_path: Path) -> None:
    """Loaded as an engine does: the logits are those of the older file, and not those of mlx-lm's default."""
    logits = []
    files: dict[str, dict[str, Any]] = {
        "older": {"rope_theta": 700.0, "rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        "newer": {"rope_theta": None, "rope_parameters": {"rope_theta": 700.0, "rope_type": "linear", "factor": 2.0}},
        "default": {},
    }
    for name, rotary in files.items():
        folder = make_tiny_model(tmp_path / name, **rotary)
        described = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({key: v for key, v in described.items() if v is not None}))
        config = EngineConfig(model=name, source=str(folder))
        logits.append(load_weights(read_folder(config), config)(mx.array([[5, 60, 7, 80, 9] * 8])))
    assert mx.array_equal(logits[0], logits[1])
    assert not mx.allclose(logits[0], logits[2], atol=0.05)

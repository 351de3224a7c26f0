from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.models.files import read_model_size
from tasks.models.reading import ModelFilesUnreadable

if TYPE_CHECKING:
    from pathlib import Path

WIDTHS = {"F32": 4, "BF16": 2, "F16": 2, "U32": 4, "I32": 4, "U8": 1, "F8_E4M3": 1}

LLAMA_8B = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "tie_word_embeddings": False,
}
QWEN_30B_A3B = {
    "hidden_size": 2048,
    "num_hidden_layers": 48,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "intermediate_size": 6144,
    "moe_intermediate_size": 768,
    "num_experts": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
}
MIXTRAL_8X7B = {**LLAMA_8B, "num_local_experts": 8, "vocab_size": 32000}
SMOLLM2_135M = {
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "intermediate_size": 1536,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
}


def write_weights(path: Path, tensors: dict[str, tuple[str, list[int]]]) -> int:
    """A safetensors file of zeros with these tensors; returns the bytes of their data."""
    header: dict[str, Any] = {"__metadata__": {"format": "mlx"}}
    at = 0
    for name, (dtype, shape) in tensors.items():
        size = WIDTHS[dtype]
        for width in shape:
            size *= width
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(at))
    return at


def write_config(folder: Path, config: object) -> None:
    (folder / "config.json").write_text(json.dumps(config))


def test_plain_weights_are_counted(tmp_path: Path) -> None:
    """Every element of every file is a parameter; bytes and context come along."""
    write_config(tmp_path, {"max_position_embeddings": 2048})
    first = write_weights(
        tmp_path / "model-1.safetensors", {"a.weight": ("BF16", [100, 1000]), "a.bias": ("F32", [100])}
    )
    second = write_weights(tmp_path / "model-2.safetensors", {"norm": ("F32", [])})
    size = read_model_size(tmp_path)
    assert size.parameters_b == pytest.approx(100_101e-9)
    assert (size.weights_bytes, size.context_tokens) == (first + second, 2048)
    assert size.kv is None


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_packed_weights_count_what_is_in_them(tmp_path: Path, bits: int) -> None:
    """mlx packs 32/bits weights into a word; scales and biases are no parameters; one layer has bits of its own."""
    write_config(tmp_path, {"quantization": {"bits": bits, "group_size": 64, "head": {"bits": 8, "group_size": 64}}})
    tensors = {
        "mlp.weight": ("U32", [10, 640 * bits // 32]),
        "mlp.scales": ("BF16", [10, 10]),
        "mlp.biases": ("BF16", [10, 10]),
        "head.weight": ("U32", [7, 64 * 8 // 32]),
        "head.scales": ("BF16", [7, 1]),
    }
    write_weights(tmp_path / "model.safetensors", tensors)
    assert read_model_size(tmp_path).parameters_b == pytest.approx((10 * 640 + 7 * 64) * 1e-9)


def test_other_peoples_packing_is_counted_too(tmp_path: Path) -> None:
    """GPTQ's words by their own config, gpt-oss's MXFP4 blocks as two values in each byte, fp8 without its scales."""
    write_config(tmp_path, {"quantization_config": {"quant_method": "gptq", "bits": 8}})
    tensors = {
        "a.qweight": ("I32", [16, 10]),
        "a.qzeros": ("I32", [1, 10]),
        "a.g_idx": ("I32", [64]),
        "experts.gate_up_proj_blocks": ("U8", [2, 8, 16]),
        "experts.gate_up_proj_scales": ("U8", [2, 8]),
        "b.weight": ("F8_E4M3", [5, 5]),
        "b.weight_scale_inv": ("F32", [1, 1]),
    }
    write_weights(tmp_path / "model.safetensors", tensors)
    assert read_model_size(tmp_path).parameters_b == pytest.approx((16 * 10 * 4 + 2 * 8 * 16 * 2 + 25) * 1e-9)


def test_an_index_stands_for_weights_that_are_not_here(tmp_path: Path) -> None:
    """While a model is being fetched its index has the totals; the files that are here are not taken for all."""
    write_config(tmp_path, LLAMA_8B)
    write_weights(tmp_path / "model-00001-of-00002.safetensors", {"a": ("BF16", [10])})
    index = {
        "metadata": {"total_size": 4_500_000_000, "total_parameters": 8_000_000_000},
        "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"},
    }
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    size = read_model_size(tmp_path)
    assert (size.parameters_b, size.weights_bytes) == (8.0, 4_500_000_000)


def test_an_index_without_totals_leaves_it_to_the_config(tmp_path: Path) -> None:
    """Older indexes have no metadata."""
    write_config(tmp_path, LLAMA_8B)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {}}))
    size = read_model_size(tmp_path)
    assert size.parameters_b == pytest.approx(8.03, rel=0.01)
    assert size.weights_bytes is None


@pytest.mark.parametrize(
    ("config", "billions"),
    [(LLAMA_8B, 8.03), (QWEN_30B_A3B, 30.5), (MIXTRAL_8X7B, 46.7), (SMOLLM2_135M, 0.1345)],
    ids=["llama-8b", "qwen-30b-a3b", "mixtral", "smollm2"],
)
def test_a_config_alone_tells_the_parameters_of_known_models(
    tmp_path: Path, config: dict[str, Any], billions: float
) -> None:
    """Dimensions give the published count within a percent, mixtures included."""
    write_config(tmp_path, config)
    assert read_model_size(tmp_path).parameters_b == pytest.approx(billions, rel=0.01)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a safetensors file"),
        (b"\xff" * 20, "not a safetensors file"),
        ((10**15).to_bytes(8, "little") + b"{}", "not a safetensors file"),
        ((100).to_bytes(8, "little") + b'{"a": 1', "cut off in its header"),
        ((7).to_bytes(8, "little") + b'{"a": 1', "not valid JSON"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer.*git lfs pull"),
        ((2).to_bytes(8, "little") + b"[]", "expected a JSON object"),
        ((10).to_bytes(8, "little") + b'{"a":   1}', "tensor 'a'"),
        ((55).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}', "impossible"),
        ((60).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[Infinity],"data_offsets":[0,8]}', "not valid"),
    ],
)
def test_damaged_weights_are_one_clear_error(tmp_path: Path, content: bytes, words: str) -> None:
    """It names the file and what is wrong with it."""
    write_config(tmp_path, {})
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelFilesUnreadable, match=words) as refused:
        read_model_size(tmp_path)
    assert "model.safetensors" in str(refused.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_what_is_no_file(tmp_path: Path, name: str) -> None:
    """Nobody waits for a pipe in the place of a file, nor fails without its name at a folder."""
    write_config(tmp_path, {})
    path = tmp_path / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises(ModelFilesUnreadable, match=rf"{name}: is no file"):
        read_model_size(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ModelFilesUnreadable, match=rf"{name}: is a folder"):
        read_model_size(tmp_path)


@pytest.mark.parametrize("config", [b"", b"[]", b"{", b"null"])
def test_a_damaged_config_is_one_clear_error(tmp_path: Path, config: bytes) -> None:
    """So is one that is missing."""
    with pytest.raises(ModelFilesUnreadable, match=r"config\.json: missing"):
        read_model_size(tmp_path)
    (tmp_path / "config.json").write_bytes(config)
    with pytest.raises(ModelFilesUnreadable, match=r"config\.json"):
        read_model_size(tmp_path)


def test_a_damaged_index_is_one_clear_error(tmp_path: Path) -> None:
    """Whatever stands where the map of files should."""
    write_config(tmp_path, {})
    write_weights(tmp_path / "model.safetensors", {"a": ("F32", [1])})
    indexes: list[dict[str, Any]] = [{"weight_map": [1]}, {"weight_map": {"a": []}}]
    for index in indexes:
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
        with pytest.raises(ModelFilesUnreadable, match="index"):
            read_model_size(tmp_path)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
fields = st.sampled_from(
    [*QWEN_30B_A3B, "layer_types", "kv_lora_rank", "text_config", "quantization", "num_local_experts"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    config=st.dictionaries(fields, json_values),
    tensors=st.dictionaries(st.sampled_from(["a.weight", "a.scales", "__metadata__", "b_blocks"]), json_values),
    index=st.none() | st.dictionaries(st.sampled_from(["weight_map", "metadata"]), json_values),
)
def test_no_content_of_a_folder_breaks_the_reader(
    tmp_path: Path, config: dict[str, Any], tensors: dict[str, Any], index: dict[str, Any] | None
) -> None:
    """Any JSON anywhere gives a size or the one error, never another one."""
    write_config(tmp_path, {**QWEN_30B_A3B, **config})
    header = json.dumps(tensors).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    (tmp_path / "model.safetensors.index.json").unlink(missing_ok=True)
    if index is not None:
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    try:
        size = read_model_size(tmp_path)
    except ModelFilesUnreadable:
        return
    assert (size.parameters_b or 0) >= 0

"""GGUF files become folders that mlx-lm loads, or one clear error."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tasks.engine.files.gguf import SIZES, _quantization, convert
from tasks.engine.files.gguf_header import read_tensor_list
from tasks.errors import ModelLoadFailed
from tests.support import ROOT

if TYPE_CHECKING:
    from pathlib import Path

HIDDEN, HEADS, LAYERS, FEED_FORWARD = 32, 2, 2, 64
TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "h", "e", "l", "o", "he", "ll", "Ġ", "1", "2"]
MERGES = ["h e", "l l"]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"


def tiny_metadata() -> dict[str, Any]:
    import mlx.core as mx

    numbers = {
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "intermediate_size": FEED_FORWARD,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "rms_norm_eps": 1e-5,
        "vocab_size": len(TOKENS),
        "rope_theta": 10_000.0,
        "max_position_embeddings": 128,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    metadata: dict[str, Any] = {
        SIZES[name]: mx.array(value, mx.float32 if isinstance(value, float) else mx.uint32)
        for name, value in numbers.items()
    }
    return metadata | {
        "general.architecture": "llama",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.token_type": mx.array([3, 3, 3] + [1] * (len(TOKENS) - 3), mx.int32),
        "tokenizer.ggml.padding_token_id": mx.array(2, mx.uint32),
        "tokenizer.ggml.unknown_token_id": mx.array(0, mx.uint32),
        "tokenizer.chat_template": TEMPLATE,
    }


def tiny_weights() -> dict[str, Any]:
    import mlx.core as mx

    shapes = {"attn_norm": (HIDDEN,), "ffn_norm": (HIDDEN,), "ffn_down": (HIDDEN, FEED_FORWARD)}
    shapes |= {f"attn_{part}": (HIDDEN, HIDDEN) for part in ("q", "k", "v", "output")}
    shapes |= {f"ffn_{part}": (FEED_FORWARD, HIDDEN) for part in ("gate", "up")}
    weights = {"token_embd.weight": mx.random.normal((len(TOKENS), HIDDEN)), "output_norm.weight": mx.ones((HIDDEN,))}
    for layer in range(LAYERS):
        for name, shape in shapes.items():
            weights[f"blk.{layer}.{name}.weight"] = mx.random.normal(shape) * 0.1
    return weights


def save(path: Path, metadata: dict[str, Any] | None = None, weights: dict[str, Any] | None = None) -> Path:
    import mlx.core as mx

    mx.save_gguf(str(path), weights or tiny_weights(), metadata or tiny_metadata())
    return path


def test_a_converted_folder_loads_and_speaks(tmp_path: Path) -> None:
    """mlx-lm loads the folder, its tokeniser merges, splits digits and fills the template, and the model computes."""
    import mlx.core as mx
    import mlx_lm

    fractions: list[float] = []
    convert(save(tmp_path / "tiny.gguf"), tmp_path / "tiny", fractions.append)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    loaded: Any = mlx_lm.load(str(tmp_path / "tiny"))
    model, tokenizer = loaded
    assert tokenizer.encode("hello 12") == [7, 8, 6, 9, 10, 11]
    assert tokenizer.decode([7, 8, 6, 9, 10, 11]) == "hello 12"
    assert tokenizer.apply_chat_template([{"role": "user", "content": "he"}]) == [1, 7, 2]
    assert tokenizer.eos_token_ids == {2}
    logits = model(mx.array([[7, 8, 6]]))
    assert logits.shape == (1, 3, len(TOKENS))
    assert bool(mx.isfinite(logits).all())


def test_weights_keep_their_values_under_new_names(tmp_path: Path) -> None:
    """Every tensor of the file is in the folder, unchanged; embeddings are tied where the file has no output."""
    import mlx.core as mx

    weights = tiny_weights()
    convert(save(tmp_path / "tiny.gguf", weights=weights), tmp_path / "tiny")
    written: Any = mx.load(str(tmp_path / "tiny" / "model.safetensors"))
    assert len(written) == len(weights)
    assert bool(mx.array_equal(written["model.layers.1.mlp.down_proj.weight"], weights["blk.1.ffn_down.weight"]))
    config = json.loads((tmp_path / "tiny" / "config.json").read_text())
    assert config["tie_word_embeddings"] is True
    assert config["num_hidden_layers"] == LAYERS


def test_bits_are_told_per_module() -> None:
    """4 bits are the rule; other widths and dense modules are named, norms never."""
    import mlx.core as mx

    weights = {
        "a.weight": mx.zeros((8, 4), mx.uint32),
        "a.scales": mx.zeros((8, 1)),
        "b.weight": mx.zeros((8, 8), mx.uint32),
        "b.scales": mx.zeros((8, 1)),
        "c.weight": mx.zeros((8, 32)),
        "d_norm.weight": mx.zeros((8,)),
    }
    assert _quantization(weights) == {
        "group_size": 32,
        "bits": 4,
        "b": {"group_size": 32, "bits": 8},
        "c": False,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"general.architecture": "mamba"}, "general.architecture is 'mamba'; only 'llama'"),
        ({"tokenizer.ggml.pre": "qwen2"}, "tokenizer.ggml.pre is 'qwen2'"),
        ({"llama.block_count": None}, "has no 'llama.block_count'"),
    ],
)
def test_other_models_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """A model of another kind is an error that names what is different, and no folder is left."""
    metadata = {key: value for key, value in (tiny_metadata() | change).items() if value is not None}
    with pytest.raises(ModelLoadFailed, match=message):
        convert(save(tmp_path / "other.gguf", metadata), tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["other.gguf"]


def test_an_unknown_tensor_is_named(tmp_path: Path) -> None:
    """A tensor that has no place in a Llama is an error with its name."""
    weights = tiny_weights() | {"blk.0.ffn_gate_exps.weight": tiny_weights()["token_embd.weight"]}
    with pytest.raises(ModelLoadFailed, match=r"tensor 'blk\.0\.ffn_gate_exps\.weight'"):
        convert(save(tmp_path / "moe.gguf", weights=weights), tmp_path / "moe")


def write_header(path: Path, *tensors: tuple[str, int]) -> Path:
    """A GGUF file with metadata of several kinds and a list of tensors, and none of their numbers."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    entries = [
        text("a.number") + struct.pack("<Id", 12, 1.5),
        text("a.text") + struct.pack("<I", 8) + text("word"),
        text("some.numbers") + struct.pack("<IIQ3i", 9, 5, 3, 1, 2, 3),
        text("some.texts") + struct.pack("<IIQ", 9, 8, 2) + text("one") + text("two"),
    ]
    listed = [text(name) + struct.pack("<IQIQ", 1, 32, kind, 0) for name, kind in tensors]
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, len(listed), len(entries)) + b"".join(entries + listed))
    return path


def test_the_list_of_tensors_is_read(tmp_path: Path) -> None:
    """Behind metadata of any kind, as MLX writes it too."""
    path = write_header(tmp_path / "a.gguf", ("a.weight", 3), ("b", 0), ("c", 77))
    assert [(tensor.name, tensor.kind) for tensor in read_tensor_list(path)] == [
        ("a.weight", "Q4_1"),
        ("b", "F32"),
        ("c", "kind 77"),
    ]
    assert {tensor.name for tensor in read_tensor_list(save(tmp_path / "tiny.gguf"))} == tiny_weights().keys()


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (("a.weight", 12), "'a.weight' is Q4_K, which MLX does not read rightly"),
        (("a.weight", 30), "is BF16"),
        (("a.weight", 39), "is MXFP4"),
        (("a.weight", 34), "is TQ1_0"),
        (("a.weight", 77), "is kind 77"),
        (("a.bias_of_all", 8), "does not end in .weight"),
    ],
)
def test_kinds_that_mlx_misreads_are_refused(tmp_path: Path, tensor: tuple[str, int], message: str) -> None:
    """Before MLX is asked: it reads some with wrong numbers, and stops at others without a word."""
    path = write_header(tmp_path / "a.gguf", ("fine.weight", 2), tensor)
    with pytest.raises(ModelLoadFailed, match=message) as raised:
        convert(path, tmp_path / "out")
    assert str(path) in str(raised.value)


def test_a_tensor_that_mlx_left_out_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has read is counted against the file's list."""
    import mlx.core as mx

    path, weights = save(tmp_path / "tiny.gguf"), tiny_weights()
    del weights["blk.1.ffn_up.weight"]
    monkeypatch.setattr(mx, "load", lambda *_, **__: (weights, tiny_metadata()))
    with pytest.raises(ModelLoadFailed, match=r"19 of 20 tensors, not 'blk\.1\.ffn_up\.weight'"):
        convert(path, tmp_path / "out")


def test_a_folder_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    """What stands under the folder's name stays as it is."""
    (tmp_path / "tiny").mkdir()
    with pytest.raises(ModelLoadFailed, match="tiny exists already"):
        convert(tmp_path / "tiny.gguf", tmp_path / "tiny")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tasks.engine.files.gguf", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_converts_and_reports(tmp_path: Path) -> None:
    """On the command line it prints the fraction done and makes the folder."""
    done = run(str(save(tmp_path / "tiny.gguf")), str(tmp_path / "tiny"))
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["0.30", "0.60", "1.00"], "")
    assert (tmp_path / "tiny" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("content", "message"), [(None, "is not a file"), (b"GG", "not a complete GGUF file"), (b"GGUF", "not a complete")]
)
def test_the_commands_errors_are_one_line(tmp_path: Path, content: bytes | None, message: str) -> None:
    """A missing, foreign or truncated file is one line that names it, and status 1."""
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    failed = run(str(path), str(tmp_path / "out"))
    assert failed.returncode == 1
    assert failed.stderr.startswith(str(path))
    assert message in failed.stderr
    assert failed.stderr.count("\n") == 1


def test_the_command_says_how_it_is_used() -> None:
    """With the wrong number of arguments it prints its usage."""
    failed = run("one")
    assert failed.returncode == 1
    assert failed.stderr.startswith("usage: python -m tasks.engine.files.gguf FILE FOLDER")

"""A GGUF file of a Llama-like model as a folder that mlx-lm loads: ``python -m tasks.engine.files.gguf FILE FOLDER``.

MLX reads Q4_0, Q4_1 and Q8_0 tensors as its own quantised weights, so nothing is rounded twice. Rows of ``q`` and ``k``
are in llama.cpp's order for rotary embedding, which mlx-lm calls ``rope_traditional``. The tokeniser is made from
the file's tokens and merges; the one pre-tokeniser known here is SmolLM2's.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.engine.files.gguf_header import check_tensors
from tasks.errors import ModelLoadFailed
from tasks.names import PACKAGE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import mlx.core as mx

#: llama.cpp's names within a block, and mlx-lm's.
MODULES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
TOP_MODULES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
#: mlx-lm's name of a size, and the file's.
SIZES = {
    "hidden_size": "llama.embedding_length",
    "num_hidden_layers": "llama.block_count",
    "intermediate_size": "llama.feed_forward_length",
    "num_attention_heads": "llama.attention.head_count",
    "num_key_value_heads": "llama.attention.head_count_kv",
    "rms_norm_eps": "llama.attention.layer_norm_rms_epsilon",
    "vocab_size": "llama.vocab_size",
    "rope_theta": "llama.rope.freq_base",
    "max_position_embeddings": "llama.context_length",
    "bos_token_id": "tokenizer.ggml.bos_token_id",
    "eos_token_id": "tokenizer.ggml.eos_token_id",
}
#: Weights that share one scale, in every GGUF type that MLX reads as quantised.
GROUP_SIZE = 32
CONTROL_TOKEN = 3


def convert(source: Path, folder: Path, report: Callable[[float], None] = lambda _: None) -> None:
    """Write ``folder`` from the GGUF file ``source``. It appears complete, under its name, or not at all.

    Args:
        source: the GGUF file.
        folder: must not exist; its parent must.
        report: is told the fraction that is done.

    Raises:
        ModelLoadFailed: the file is not one that can be converted, or ``folder`` exists.
        OSError: the folder cannot be written.
    """
    if folder.exists():
        raise ModelLoadFailed(f"{folder} exists already; remove it to convert {source} again")
    weights, metadata = _read(source)
    report(0.3)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write(partial, _rename(weights, source), Metadata(metadata, source), report)
        partial.chmod(0o755)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    report(1.0)


class Metadata:
    """A GGUF file's metadata as plain Python values.

    Args:
        values: as ``mx.load`` returns them.
        source: the file, for errors.
    """

    def __init__(self, values: Mapping[str, Any], source: Path) -> None:
        self._values = values
        self._source = source

    def __getitem__(self, key: str) -> Any:
        try:
            value = self._values[key]
        except KeyError:
            raise ModelLoadFailed(f"{self._source} has no {key!r}: not a GGUF file of a Llama-like model") from None
        return value.tolist() if hasattr(value, "tolist") else value

    def expect(self, key: str, expected: str) -> None:
        """Refuse a file that says anything else here."""
        if self[key] != expected:
            raise ModelLoadFailed(f"{self._source}: {key} is {self[key]!r}; only {expected!r} can be converted")


def _read(source: Path) -> tuple[dict[str, mx.array], dict[str, Any]]:
    import mlx.core as mx

    if not source.is_file():
        raise ModelLoadFailed(f"{source} is not a file")
    tensors = check_tensors(source)
    try:
        loaded: Any = mx.load(str(source), format="gguf", return_metadata=True)
    except (RuntimeError, ValueError) as error:
        raise ModelLoadFailed(f"{source} is not a complete GGUF file: {error}") from None
    weights, metadata = loaded
    left_out = sorted({tensor.name for tensor in tensors} - weights.keys())
    if left_out:
        raise ModelLoadFailed(
            f"{source}: MLX has read {len(tensors) - len(left_out)} of {len(tensors)} tensors, not {left_out[0]!r}"
        )
    return weights, metadata


def _rename(weights: Mapping[str, mx.array], source: Path) -> dict[str, mx.array]:
    renamed = {}
    for name, weight in weights.items():
        match name.split("."):
            case ["blk", layer, module, part] if module in MODULES:
                renamed[f"model.layers.{layer}.{MODULES[module]}.{part}"] = weight
            case [module, part] if module in TOP_MODULES:
                renamed[f"{TOP_MODULES[module]}.{part}"] = weight
            case _:
                raise ModelLoadFailed(f"{source} has a tensor {name!r}: not a Llama-like model")
    return renamed


def _quantization(weights: Mapping[str, mx.array]) -> dict[str, Any]:
    """mlx-lm's description: 4 bits, and by name the modules that have other bits or are not quantised."""
    table: dict[str, Any] = {"group_size": GROUP_SIZE, "bits": 4}
    for module in sorted(name.removesuffix(".weight") for name in weights if name.endswith(".weight")):
        scales = weights.get(f"{module}.scales")
        if scales is None:
            if "norm" not in module:
                table[module] = False
            continue
        bits = weights[f"{module}.weight"].shape[-1] * 32 // (scales.shape[-1] * GROUP_SIZE)
        if bits != table["bits"]:
            table[module] = {"group_size": GROUP_SIZE, "bits": bits}
    return table


def _write(folder: Path, weights: dict[str, mx.array], metadata: Metadata, report: Callable[[float], None]) -> None:
    import mlx.core as mx

    metadata.expect("general.architecture", "llama")
    metadata.expect("tokenizer.ggml.model", "gpt2")
    metadata.expect("tokenizer.ggml.pre", "smollm")
    config = {name: metadata[key] for name, key in SIZES.items()} | {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "rope_traditional": True,
        "tie_word_embeddings": "lm_head.weight" not in weights,
        "quantization": _quantization(weights),
    }
    _write_json(folder / "config.json", config)
    _write_tokenizer(folder, metadata)
    report(0.6)
    path = folder / "model.safetensors"
    mx.save_safetensors(str(path), weights, metadata={"format": "mlx"})
    with path.open("rb") as written:
        os.fsync(written.fileno())


def _write_tokenizer(folder: Path, metadata: Metadata) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    kinds = metadata["tokenizer.ggml.token_type"]
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL_TOKEN]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": tokens[metadata["tokenizer.ggml.bos_token_id"]],
            "eos_token": tokens[metadata["tokenizer.ggml.eos_token_id"]],
            "pad_token": tokens[metadata["tokenizer.ggml.padding_token_id"]],
            "unk_token": tokens[metadata["tokenizer.ggml.unknown_token_id"]],
            "clean_up_tokenization_spaces": False,
            "model_max_length": metadata["llama.context_length"],
            "chat_template": metadata["tokenizer.chat_template"],
        },
    )


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Convert, printing the fraction done after each step; an error is one line on standard error and status 1."""
    try:
        source, folder = map(Path, arguments)
        convert(source, folder, lambda fraction: print(f"{fraction:.2f}", flush=True))  # noqa: T201
    except ImportError as error:
        sys.stderr.write(f"{error.name} is not installed: pip install 'celery-mlx[worker]'\n")
    except ValueError as error:
        sys.stderr.write(f"usage: python -m {PACKAGE}.engine.files.gguf FILE FOLDER ({error})\n")
    except (ModelLoadFailed, OSError) as error:
        sys.stderr.write(f"{error}\n")
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

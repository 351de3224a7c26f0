"""Language models that are made in well under a second: 2 layers, a byte-level tokenizer, random or scripted weights."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CONTEXT_TOKENS = 2048


def make_tiny_model(
    folder: Path, *, chat_template: bool | str = True, seed: int = 0, script: str = "", ends: bool = True, **config: Any
) -> Path:
    """Write a model that mlx-lm loads into ``folder``, which is made if need be, and return it.

    The same ``seed`` makes the same random weights everywhere. With a ``script`` (of which no byte occurs twice) the
    greedy answer to everything is the script, over and over, or once if it ``ends``. ``config`` overrides entries of
    ``config.json``. ``chat_template`` may be one of the caller's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = _write_tokenizer(folder, chat_template=chat_template)
    if script:
        config = {"hidden_size": -(-vocabulary // 8) * 8, "tie_word_embeddings": False, **config}
    described = _write_config(folder, vocabulary, config)
    tensors = _random_weights(described, seed)
    if script:
        tensors |= _scripted_weights(folder, tensors, script, ends=ends)
    write_safetensors(folder / "model.safetensors", tensors)
    return folder


def make_tiny_architecture(folder: Path, name: str) -> Path:
    """Write a random model of any of mlx-lm's architectures (:mod:`benchmarks.models.tiny`), and return the folder."""
    import mlx.core as mx
    from mlx.utils import tree_flatten

    from benchmarks.models.tiny import build, config

    folder.mkdir(parents=True, exist_ok=True)
    _write_tokenizer(folder, chat_template=True)
    _, described = config(name)
    (folder / "config.json").write_text(json.dumps({**described, "eos_token_id": 265}))
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(build(name).parameters())))
    return folder


def end_id(folder: Path) -> int:
    """The id of the token that ends an answer of this model."""
    return int(json.loads((folder / "config.json").read_text())["eos_token_id"])


def _write_tokenizer(folder: Path, *, chat_template: bool | str) -> int:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("i", "n"), ("e", "r"), ("a", "n"), ("o", "u")]
    tokens = [*alphabet, *(left + right for left, right in merges)]
    tokenizer = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    tokenizer.save(str(folder / "tokenizer.json"))
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|endoftext|>",
        "eos_token": "<|im_end|>",
        "model_max_length": CONTEXT_TOKENS,
        "clean_up_tokenization_spaces": False,
        **({"chat_template": CHAT_TEMPLATE if chat_template is True else chat_template} if chat_template else {}),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(described))
    return int(tokenizer.get_vocab_size())


def _write_config(folder: Path, vocabulary: int, changes: dict[str, Any]) -> dict[str, Any]:
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "intermediate_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5,
        "vocab_size": vocabulary,
        "max_position_embeddings": CONTEXT_TOKENS,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "bos_token_id": vocabulary - 3,
        "eos_token_id": vocabulary - 1,
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return config


def _random_weights(config: dict[str, Any], seed: int) -> dict[str, Any]:
    import numpy as np

    draw = np.random.default_rng(seed)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    kv = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for number in range(config["num_hidden_layers"]):
        layer = f"model.layers.{number}"
        attention = {"q": (hidden, hidden), "k": (kv, hidden), "v": (kv, hidden), "o": (hidden, hidden)}
        shapes |= {f"{layer}.self_attn.{name}_proj.weight": shape for name, shape in attention.items()}
        perceptron = {"gate": (inner, hidden), "up": (inner, hidden), "down": (hidden, inner)}
        shapes |= {f"{layer}.mlp.{name}_proj.weight": shape for name, shape in perceptron.items()}
        shapes |= {f"{layer}.{name}_layernorm.weight": (hidden,) for name in ("input", "post_attention")}
    shapes["model.norm.weight"] = (hidden,)
    return {
        name: (np.ones(shape) if len(shape) == 1 else draw.normal(0, 0.15, shape)).astype(np.float32)
        for name, shape in shapes.items()
    }


def _scripted_weights(folder: Path, tensors: dict[str, Any], script: str, *, ends: bool) -> dict[str, Any]:
    """Layers that add nothing, a one-hot embedding, and a head that maps each token to the one after it."""
    import numpy as np
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    ids = tokenizer.encode(script).ids
    assert len(set(ids)) == len(ids), "a token of the script occurs twice"
    vocabulary, hidden = tensors["model.embed_tokens.weight"].shape
    head = np.zeros((vocabulary, hidden), np.float32)
    following = dict(zip(ids, [*ids[1:], end_id(folder) if ends else ids[0]], strict=True))
    for token_id in range(vocabulary):
        head[following.get(token_id, ids[0]), token_id] = 1.0
    silent = {
        name: np.zeros_like(tensor) for name, tensor in tensors.items() if "o_proj" in name or "down_proj" in name
    }
    embedding = np.eye(vocabulary, hidden, dtype=np.float32)
    return {**silent, "model.embed_tokens.weight": embedding, "lm_head.weight": head}


def write_safetensors(path: Path, tensors: dict[str, Any]) -> None:
    """Write float32 arrays in the safetensors format: header length, JSON header, bytes."""
    header: dict[str, Any] = {}
    at = 0
    for name, array in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(array.tobytes() for array in tensors.values()))

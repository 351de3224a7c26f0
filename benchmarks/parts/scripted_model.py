"""A tiny model that says what a script tells it, token by token, in real mlx-lm; a token may occur in a script several times.

The embedding is one-hot. One attention layer copies the tokens one, two and three places back into the residual: the
rotary phases of a head's constant query and key agree at one distance alone. The MLP has a unit for each step of the script,
which fires where the last tokens are that step's, and the head maps it to the next token. So the answer to every prompt is
the script, by greedy decoding, and batching, caches and resumes run through the ordinary code.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from benchmarks.parts.tiny_model import CHAT_TEMPLATE, CONTEXT_TOKENS, SPECIAL_TOKENS, write_safetensors

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: How many tokens decide on the next one, and what each of them adds to a unit, the last token first.
WINDOW = 4
VOTES = (1.0, 0.3, 0.15, 0.075)
#: A unit is silent below this: the last token must be the step's.
THRESHOLD = 0.9
#: The constant vote for the first token of the script: any unit that fires beats it.
START = 0.05
#: How much more the first step counts than the last: at the beginning the tokens before are the prompt's.
EARLY = 0.03
SHARPNESS = 10.0
ROTARY_BASE = 100.0


def make_scripted_model(
    folder: Path,
    script: Sequence[str],
    *,
    end: str | None = "<|im_end|>",
    special: Sequence[str] = SPECIAL_TOKENS,
    added: Sequence[str] = (),
    words: Sequence[str] = (),
    template: str = CHAT_TEMPLATE,
) -> Path:
    """Write a model into ``folder`` and return it.

    A part of ``script`` is a token by its name, or text, which comes byte by byte. After the last one comes ``end``, or the
    script again where that is ``None``. ``special`` tokens have no text, ``added`` ones have, and ``words`` (of letters) are
    tokens that no text is cut into: for what occurs in prompt and script.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = byte_tokenizer(special, added, words)
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = [token_id for part in script for token_id in _ids(tokenizer, part)]
    end_token_id: int = tokenizer.get_vocab()[end] if end else -1
    following = [*ids[1:], end_token_id if end else ids[0]]
    steps = [(ids[max(0, at - WINDOW + 1) : at + 1][::-1], following[at]) for at in range(len(ids))]
    vocabulary = tokenizer.get_vocab_size()
    tensors, shape = _weights(steps, ids[0], vocabulary)
    write_safetensors(folder / "model.safetensors", tensors)
    ends = {"bos_token_id": 0, "eos_token_id": end_token_id if end else vocabulary - 1}
    (folder / "config.json").write_text(json.dumps(shape | ends))
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": end or special[-1],
        "chat_template": template,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(described | {"clean_up_tokenization_spaces": False}))
    return folder


def byte_tokenizer(special: Sequence[str], added: Sequence[str] = (), words: Sequence[str] = ()) -> Tokenizer:
    """A byte-level tokenizer without merges."""
    vocabulary = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *words]
    tokenizer = Tokenizer(models.BPE(vocab={token: n for n, token in enumerate(vocabulary)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in added])
    return tokenizer


def _ids(tokenizer: Tokenizer, part: str) -> list[int]:
    known = tokenizer.token_to_id(part) if len(part) > 1 else None
    ids: list[int] = [known] if known is not None else tokenizer.encode(part, add_special_tokens=False).ids
    return ids


def _weights(steps: list[tuple[list[int], int]], first: int, size: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tensors of a llama with one layer, and its configuration."""
    heads, head_dim = WINDOW - 1, size + size % 2
    # Place 0 of the residual is constant; then there is a block of one-hot tokens for each place back, and one of votes.
    hidden = -(-(1 + (WINDOW + 1) * size) // (8 * heads)) * 8 * heads
    layer, token = "model.layers.0.", np.arange(size)
    norms = ("model.norm", f"{layer}input_layernorm", f"{layer}post_attention_layernorm")
    tensors: dict[str, Any] = {f"{name}.weight": np.ones(hidden, np.float32) for name in norms}

    def matrix(name: str, rows: int, columns: int) -> Any:
        return tensors.setdefault(f"{name}.weight", np.zeros((rows, columns), np.float32))

    embedding = matrix("model.embed_tokens", size, hidden)
    embedding[:, 0] = 1
    embedding[token, 1 + token] = 1
    embedded = (hidden / 2) ** 0.5  # RMSNorm makes the two ones of an embedding this large
    q, k, v = (matrix(f"{layer}self_attn.{name}_proj", heads * head_dim, hidden) for name in "qkv")
    o = matrix(f"{layer}self_attn.o_proj", hidden, heads * head_dim)
    strength, half = 20.0 / embedded, head_dim // 2
    phases = ROTARY_BASE ** (-2 * np.arange(half) / head_dim)
    for head in range(heads):
        low = head * head_dim
        q[low : low + half, 0] = strength
        k[low : low + half, 0] = strength * np.cos((head + 1) * phases)
        k[low + half : low + head_dim, 0] = strength * np.sin((head + 1) * phases)
        v[low + token, 1 + token] = 1 / embedded
        o[1 + (head + 1) * size + token, low + token] = 1
    attended, steepness = (hidden / (WINDOW + 1)) ** 0.5, 300.0
    units = max(8, len(steps))
    gate, up = (matrix(f"{layer}mlp.{name}_proj", units, hidden) for name in ("gate", "up"))
    down, output = matrix(f"{layer}mlp.down_proj", hidden, units), matrix("lm_head", size, hidden)
    for at, (last, following) in enumerate(steps):
        gate[at, 0] = -THRESHOLD * steepness / attended
        for back, token_id in enumerate(last):
            gate[at, 1 + back * size + token_id] = VOTES[back] * steepness / attended
        up[at, 0] = 1 / attended
        down[1 + WINDOW * size + following, at] = (1 + EARLY * (1 - at / len(steps))) / steepness
    output[token, 1 + WINDOW * size + token] = SHARPNESS
    output[first, 0] = SHARPNESS * START
    return tensors, _shape(hidden, units, head_dim, size)


def _shape(hidden: int, units: int, head_dim: int, size: int) -> dict[str, Any]:
    """The configuration of a llama with one layer, and a head for each place back."""
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": hidden,
        "num_hidden_layers": 1,
        "intermediate_size": units,
        "num_attention_heads": WINDOW - 1,
        "num_key_value_heads": WINDOW - 1,
        "head_dim": head_dim,
        "rms_norm_eps": 1e-9,
        "vocab_size": size,
        "max_position_embeddings": CONTEXT_TOKENS,
        "rope_theta": ROTARY_BASE,
        "tie_word_embeddings": False,
    }

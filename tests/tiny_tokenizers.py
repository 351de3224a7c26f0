"""Tokenizers of a few hundred tokens, in the shapes that models have: made by hand, each with its file's own rules."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tokenizers import Tokenizer

SPECIAL = ("<unk>", "<s>", "</s>")
MARK = "\u2581"


def byte_level(*, digits: bool = False, prefix: bool = False, decoder: Any = None) -> Tokenizer:
    """GPT-2's shape: all 256 bytes and some merges; ``digits`` keeps them apart, ``prefix`` puts a space before a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    merges = [("Ġ", "a"), ("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("1", "2"), ("Ġ", "Ġ"), ("ð", "Ł"), ("Ã", "©")]
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    made = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=merges))
    split = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    apart = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), split])
    made.pre_tokenizer = apart if digits else split
    made.decoder = decoder or decoders.ByteLevel()
    return _with_special(made)


def sentencepiece(*, prefix: bool = True, metaspace: bool = False, extra: Sequence[str] = ()) -> Tokenizer:
    """Llama 2's shape, or without ``prefix`` Gemma's; ``metaspace`` writes the same rules as newer files do."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    merges = [(MARK, "a"), (MARK, "t"), ("h", "e"), (f"{MARK}t", "he"), ("1", "2"), (MARK, MARK)]
    pieces = [*(f"<0x{byte:02X}>" for byte in range(256)), MARK, *map(chr, range(33, 127))]
    tokens = [*SPECIAL, *pieces, *("".join(pair) for pair in merges), *extra]
    made = Tokenizer(
        models.BPE(
            vocab={token: number for number, token in enumerate(tokens)},
            merges=merges,
            byte_fallback=True,
            unk_token="<unk>",
            fuse_unk=True,
        )
    )
    steps = [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    if metaspace:
        scheme = "always" if prefix else "never"
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
        made.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=scheme)])
    else:
        replaced = normalizers.Replace(" ", MARK)
        made.normalizer = normalizers.Sequence([normalizers.Prepend(MARK), replaced]) if prefix else replaced
        made.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    return _with_special(made)


def suffixed() -> Tokenizer:
    """The shape of the first GPT: a token that ends a word says so."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = [chr(code) for code in range(33, 127)]
    tokens = ["<unk>", *letters, *(f"{letter}</w>" for letter in letters)]
    made = Tokenizer(
        models.BPE(
            vocab={token: number for number, token in enumerate(tokens)},
            merges=[],
            unk_token="<unk>",
            end_of_word_suffix="</w>",
        )
    )
    made.pre_tokenizer = pre_tokenizers.Split(" ", "removed")
    made.decoder = decoders.BPEDecoder(suffix="</w>")
    return _with_special(made)


def save(tokenizer: Tokenizer, folder: Path, model_type: str = "llama", **described: Any) -> Path:
    """Write the tokenizer's files and a config.json of this type into ``folder``; returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"model_type": model_type, **described.pop("config", {})}))
    values = {"eos_token": "</s>", "clean_up_tokenization_spaces": False, **described}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({name: value for name, value in values.items() if value is not None})
    )
    return folder


def _with_special(tokenizer: Tokenizer) -> Tokenizer:
    from tokenizers import AddedToken

    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return tokenizer

"""The shapes of real tokenizers, with a few hundred tokens: how a text is cut, how tokens are decoded, what begins a prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Shape: TypeAlias = Callable[[Sequence[str], Sequence[str], Sequence[str]], Tokenizer]

MARK = "\u2581"
_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
#: How each family cuts a text before its merges: Llama 3 and o200k take digits by threes, Qwen one by one.
LLAMA_3 = rf"{_LETTERS}|\p{{N}}{{1,3}}|{_REST}"
QWEN = rf"{_LETTERS}|\p{{N}}|{_REST}"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SUFFIX = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_SUFFIX}|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_SUFFIX}"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _byte_level(pattern: str, *, bos: str = "", normalizer: Any = None, ignore_merges: bool = False) -> Shape:
    """Bytes, cut by a pattern; ``bos`` is put in front of a text by the tokenizer itself."""

    def make(special: Sequence[str], added: Sequence[str], words: Sequence[str]) -> Tokenizer:
        spelling = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        spelt = ["".join(token for token, _ in spelling.pre_tokenize_str(word)) for word in words]
        merges = _merges(spelt)
        tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *dict.fromkeys(map("".join, merges))]
        made = Tokenizer(models.BPE(vocab=_numbered(tokens), merges=merges, ignore_merges=ignore_merges))
        made.normalizer = normalizer
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        made.pre_tokenizer = pre_tokenizers.Sequence([split, spelling])
        made.decoder = decoders.ByteLevel()
        return _with_added(made, special, added, bos)

    return make


def _sentencepiece(kind: str) -> Shape:
    """Characters, and bytes for those that the vocabulary lacks: as Llama 2, as Mistral's later files, or as Gemma."""

    def make(special: Sequence[str], added: Sequence[str], words: Sequence[str]) -> Tokenizer:
        merges = _merges([word.replace(" ", MARK) for word in words])
        pieces = [*(f"<0x{byte:02X}>" for byte in range(256)), MARK, *map(chr, range(33, 127))]
        tokens = [*special, *pieces, *dict.fromkeys(map("".join, merges))]
        made = Tokenizer(
            models.BPE(vocab=_numbered(tokens), merges=merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True)
        )
        marked: Any = normalizers.Replace(" ", MARK)
        steps: list[Any] = [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
        if kind == "gemma":
            made.normalizer = marked
            made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        elif kind == "mistral":
            made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        else:
            made.normalizer = normalizers.Sequence([normalizers.Prepend(MARK), marked])
        made.decoder = decoders.Sequence(steps if kind == "gemma" else [*steps, decoders.Strip(" ", 1, 0)])
        # What follows a marker of Phi 3, a line end as a rule, is a part of it.
        return _with_added(made, special, added, "<bos>" if kind == "gemma" else "<s>", rstrip=kind == "llama2")

    return make


SHAPES: dict[str, Shape] = {
    "llama3": _byte_level(LLAMA_3, bos="<|begin_of_text|>", ignore_merges=True),
    "qwen": _byte_level(QWEN, normalizer=normalizers.NFC()),
    "o200k": _byte_level(O200K, ignore_merges=True),
    "gemma": _sentencepiece("gemma"),
    "mistral": _sentencepiece("mistral"),
    "llama2": _sentencepiece("llama2"),
}


def _merges(words: Sequence[str]) -> list[tuple[str, str]]:
    """What makes each word one token, letter by letter."""
    return list(dict.fromkeys((word[:at], word[at]) for word in words for at in range(1, len(word))))


def _numbered(tokens: Sequence[str]) -> dict[str, int]:
    return {token: number for number, token in enumerate(tokens)}


def _with_added(
    made: Tokenizer, special: Sequence[str], added: Sequence[str], bos: str, *, rstrip: bool = False
) -> Tokenizer:
    made.add_special_tokens(
        [
            AddedToken(token, special=True, normalized=False, rstrip=rstrip and token.startswith("<|"))
            for token in special
        ]
    )
    made.add_tokens([AddedToken(token, special=False, normalized=False) for token in added])
    if bos:
        made.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, made.token_to_id(bos))]
        )
    return made

"""The least number of tokens that a text can have, without tokenising it: megabytes that no context holds are refused at once."""

from __future__ import annotations

import json
import re
import string
import unicodedata
from math import ceil
from typing import TYPE_CHECKING, Any

from tasks.errors import ContextExceeded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from mlx_lm.tokenizer_utils import TokenizerWrapper

#: Longer prompts take a while to tokenise.
LONG_CHARACTERS = 32_768
_LETTERS = string.ascii_letters + string.digits
_BYTE = re.compile("<0x[0-9A-F]{2}>")
_WORDS = re.compile(f"[{_LETTERS}]+")
#: Steps before the merges that leave each character of a text in place, perhaps with more beside it.
_NORMALIZERS = frozenset({"Prepend", "Replace", "NFC", "Sequence"})
_PRE_TOKENIZERS = frozenset({"ByteLevel", "Digits", "Metaspace", "Sequence", "Split"})


class FewestTokens:
    """A lower bound of the count of tokens of a text.

    A token of a byte-pair encoding stands for at most as many characters as its own text has. The bound counts all
    characters, where the vocabulary has a token for every byte, and ASCII letters and digits by themselves, since the longest
    tokens are white space and rules of dashes. Other kinds of tokenizer may read many characters as one unknown token, or
    drop some: their bound is 0.

    Args:
        tokenizer: the model's.
    """

    def __init__(self, tokenizer: TokenizerWrapper) -> None:
        hf: Any = tokenizer._tokenizer
        backend = getattr(hf, "backend_tokenizer", None)
        self._most_words = self._longest = 0
        if backend is None or not _cuts_only(backend):
            return
        self._composes = "NFC" in _kinds(_state(backend.normalizer))
        added = hf.added_tokens_decoder.values()
        self._greedy = tuple(token.content for token in added if token.lstrip or token.rstrip)
        vocabulary = [token for token in hf.get_vocab() if not _BYTE.fullmatch(token)]
        plain = backend.get_vocab(with_added_tokens=False)
        if all(letter in plain for letter in _LETTERS):
            self._most_words = max(map(_word_characters, vocabulary))
        if all(token in plain for token in _byte_tokens(backend)):
            self._longest = max(map(len, vocabulary))

    def __call__(self, text: str, ignored: int = 0) -> int:
        """The bound, for a text of which ``ignored`` characters, none of them letters, are not tokenised."""
        bounded = self._most_words or self._longest
        if not bounded or any(token in text for token in self._greedy):
            return 0
        if self._composes and not unicodedata.is_normalized("NFC", text):
            return 0
        by_words = ceil(_word_characters(text) / self._most_words) if self._most_words else 0
        by_length = ceil((len(text) - ignored) / self._longest) if self._longest else 0
        return max(by_words, by_length)


def tokens_left(prompt_tokens: int, max_tokens: int | None, context_tokens: int, *, at_least: bool = False) -> int:
    """The most tokens that an answer may have.

    Args:
        prompt_tokens: the prompt's.
        max_tokens: what the request asks for; ``None`` asks for all that is left.
        context_tokens: prompt and answer together, at most.
        at_least: the prompt has perhaps more tokens than that.

    Raises:
        ContextExceeded: they do not fit.
    """
    left = context_tokens - prompt_tokens
    if max_tokens is None and left > 0:
        return left
    if max_tokens is None or max_tokens > left:
        asked = "at least 1" if max_tokens is None else str(max_tokens)
        raise ContextExceeded(
            f"the prompt has {'at least ' if at_least else ''}{prompt_tokens} tokens and max_tokens is {asked}: together more "
            f"than the model's context of {context_tokens} tokens"
        )
    return max_tokens


def _cuts_only(backend: Any) -> bool:
    """Whether the tokenizer merges the characters of a text as it is, and drops none of them before."""
    from tokenizers import models

    if backend.truncation is not None or not isinstance(backend.model, models.BPE):
        return False
    normalizer, splitter = _state(backend.normalizer), _state(backend.pre_tokenizer)
    if not (_kinds(normalizer) <= _NORMALIZERS and _kinds(splitter) <= _PRE_TOKENIZERS):
        return False
    if any(step["type"] == "Split" and step["behavior"] == "Removed" for step in _steps(splitter)):
        return False
    return all(step["type"] != "Replace" or _lengthens(step) for step in _steps(normalizer))


def _byte_tokens(backend: Any) -> Iterable[str]:
    from tokenizers import pre_tokenizers

    if backend.model.byte_fallback:
        return [f"<0x{byte:02X}>" for byte in range(256)]
    alphabet: list[str] = pre_tokenizers.ByteLevel.alphabet()
    return alphabet


def _lengthens(replace: Mapping[str, Any]) -> bool:
    old = replace["pattern"].get("String")
    return old is not None and len(old) <= len(replace["content"])


def _state(part: Any) -> Mapping[str, Any] | None:
    return None if part is None else json.loads(part.__getstate__())


def _kinds(state: Mapping[str, Any] | None) -> set[str]:
    return {step["type"] for step in _steps(state)}


def _steps(state: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    if state is None:
        return
    yield state
    for step in (*state.get("normalizers", ()), *state.get("pretokenizers", ())):
        yield from _steps(step)


def _word_characters(text: str) -> int:
    return sum(map(len, _WORDS.findall(text)))

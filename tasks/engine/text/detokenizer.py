"""Turns token ids into text, one token at a time, for every kind of tokenizer that mlx-lm serves."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from tasks.engine.text.byte_vocabulary import byte_vocabulary
from tasks.engine.text.vocabulary import special_ids
from tasks.engine.text.window_vocabulary import WindowVocabulary

if TYPE_CHECKING:
    from mlx_lm.tokenizer_utils import TokenizerWrapper

    from tasks.engine.text.byte_vocabulary import ByteVocabulary
    from tasks.engine.text.vocabulary import Vocabulary

_vocabularies: WeakKeyDictionary[TokenizerWrapper, Vocabulary] = WeakKeyDictionary()


def token_text(tokenizer: TokenizerWrapper, token_id: int) -> str:
    """One token alone, as text for people: part of a character reads U+FFFD, a special token its name."""
    return vocabulary_of(tokenizer).text(token_id)


def vocabulary_of(tokenizer: TokenizerWrapper) -> Vocabulary:
    """Return the vocabulary that all decoders of this tokenizer share; made once."""
    found = _vocabularies.get(tokenizer)
    if found is None:
        found = _vocabularies[tokenizer] = _make_vocabulary(tokenizer)
    return found


def streamed_text(tokenizer: TokenizerWrapper, ids: list[int]) -> str:
    """All text of these tokens, as a request's decoder makes it, one token after the other."""
    return _streamed(vocabulary_of(tokenizer), ids)


def _streamed(vocabulary: Vocabulary, ids: list[int]) -> str:
    decoder = vocabulary.decoder()
    return "".join(map(decoder.push, ids)) + decoder.finish()


def _make_vocabulary(tokenizer: TokenizerWrapper) -> Vocabulary:
    # The wrapper would keep itself alive as the value of a weak dictionary that it is the key of.
    hf = tokenizer._tokenizer
    silent = frozenset(tokenizer.eos_token_ids) | special_ids(hf)
    window = WindowVocabulary(hf, silent)
    found = byte_vocabulary(hf, silent)
    # A class of transformers may do more than its decoder says, such as to put line ends in the place of a mark.
    return window if found is None or not _agree(found, window) else found


def _agree(found: ByteVocabulary, window: WindowVocabulary) -> bool:
    """Whether both say the same of text with spaces, line ends and marks."""
    tried = (window.hf.encode(text, add_special_tokens=False) for text in (" a b\n c", "a <n>\n\u2581b"))
    spoken = ([token_id for token_id in ids if token_id not in window.silent] for ids in tried)
    return all(_streamed(found, ids) == window.decode(ids) for ids in spoken)

"""The vocabulary that the decoders of one tokenizer share."""

from __future__ import annotations

from typing import Protocol

from tasks.engine.text.stop_tokens import SpecialTokens


class Decoder(Protocol):
    """Token ids to text without stop strings, for one request."""

    def push(self, token_id: int) -> str:
        """Take a token, return the text that it completes."""
        ...

    def finish(self) -> str:
        """Return what is left of an unfinished character."""
        ...

    def cut(self) -> str:
        """Return what is left of an unfinished character; what comes next is not a part of it."""
        ...


class Vocabulary(Protocol):
    """The vocabulary that the decoders of one tokenizer share; ``special`` are the tokens without text."""

    special: SpecialTokens

    def decoder(self) -> Decoder:
        """A decoder for one request."""
        ...

    def text(self, token_id: int) -> str:
        """One token alone, for people."""
        ...


class _AddedToken(Protocol):
    special: bool


class HuggingFace(Protocol):
    """The part of Hugging Face's tokenizer that is used here."""

    all_special_ids: list[int]
    added_tokens_decoder: dict[int, _AddedToken]

    def convert_ids_to_tokens(self, ids: int) -> str | None:
        """The token of an id; ``None`` beyond the vocabulary."""
        ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """The ids of a text."""
        ...

    def decode(self, ids: list[int], *, clean_up_tokenization_spaces: bool) -> str:
        """The text of these ids together."""
        ...


def special_tokens(hf: HuggingFace) -> SpecialTokens:
    """The tokens without text, by their names."""
    return SpecialTokens({hf.convert_ids_to_tokens(token_id) or "": token_id for token_id in special_ids(hf)})


def special_ids(hf: HuggingFace) -> frozenset[int]:
    """The same, by id."""
    try:
        added = hf.added_tokens_decoder
    except NotImplementedError:  # mistral-common's tokenizers, whose special ids are complete
        added = {}
    called = frozenset(hf.all_special_ids).union(token_id for token_id, token in added.items() if token.special)
    return frozenset(token_id for token_id in called if not is_a_sign(hf.convert_ids_to_tokens(token_id) or ""))


def is_a_sign(token: str) -> bool:
    """Whether this is a letter, digit or punctuation mark: it is text, although the files of a tokenizer may call it special.

    Models that were trained with ``tokenizer.pad_token = "!"`` have such files; without text, no answer would have a ``!``.
    """
    return len(token) == 1 and token.isascii() and token.isprintable()

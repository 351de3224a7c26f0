"""A model's vocabulary as llguidance reads it: the bytes of each token, as the detokenizer has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llguidance import LLTokenizer, TokenizerWrapper

from tasks.engine.text.byte_vocabulary import ByteVocabulary
from tasks.engine.text.detokenizer import vocabulary_of
from tasks.errors import InvalidRequest
from tasks.messages.encoding import to_json

if TYPE_CHECKING:
    from collections.abc import Collection

    from mlx_lm.tokenizer_utils import TokenizerWrapper as ModelTokenizer


class Tokens:
    """The tokens of one model, for grammars.

    A special token, and a marker of the model's reasoning, is no text: no regular expression and no string of a grammar
    matches it, and :meth:`term` names it. Every other token stands for the bytes that it adds to the answer's text.

    Args:
        tokenizer: the model's.
        width: how many tokens its logits have.
        markers: the ids of tokens that mark a part of an answer.

    Raises:
        InvalidRequest: what this tokenizer's tokens say depends on those beside them.
    """

    def __init__(self, tokenizer: ModelTokenizer, width: int, markers: Collection[int] = ()) -> None:
        vocabulary = vocabulary_of(tokenizer)
        if not isinstance(vocabulary, ByteVocabulary):
            raise InvalidRequest(
                "what the tokens of this model say depends on the tokens beside them, so its answers cannot be constrained: "
                "take another model, or leave the constraint out"
            )
        #: Whether the decoder drops a space before the text.
        self.trims = vocabulary.trim
        pieces = vocabulary.pieces
        special = (pieces.silent | set(markers)) & set(range(width))
        names = {token_id: pieces.hf.convert_ids_to_tokens(token_id) or "" for token_id in special}
        self._special = {name: token_id for token_id, name in names.items() if name}
        ends = sorted(special.intersection(tokenizer.eos_token_ids))
        spoken = [names[token_id].encode() if token_id in names else pieces[token_id] for token_id in range(width)]
        self.llguidance = LLTokenizer(
            TokenizerWrapper(_Vocabulary(spoken, sorted(special), ends[0] if ends else 0, pieces.hf)),
            eos_token=ends or None,
        )

    def term(self, text: str) -> str:
        """This text as a term of a Lark grammar: the special token of this name where there is one, else a string."""
        token_id = self._special.get(text)
        return to_json(text) if token_id is None else f"<[{token_id}]>"


class _Vocabulary:
    """A tokenizer as llguidance wants it."""

    bos_token_id = None

    def __init__(self, tokens: list[bytes], special_token_ids: list[int], eos_token_id: int, hf: Any) -> None:
        self.tokens = tokens
        self.special_token_ids = special_token_ids
        self.eos_token_id = eos_token_id
        self._hf = hf

    def __call__(self, text: str | bytes) -> list[int]:
        decoded = text if isinstance(text, str) else text.decode()
        return list(self._hf.encode(decoded, add_special_tokens=False))

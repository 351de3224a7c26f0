"""Tokens of a query and documents for a cross-encoder, by its ``tokenizer.json``.

The characters of a special token in them are text: a document that writes the separator begins no third text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.engine.embedding.embedder import Row
from tasks.engine.embedding.tokens import open_tokenizer, require_known
from tasks.errors import ContextExceeded

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tokenizers import Encoding

#: What tokenizers call the token of a text that they have no other for.
UNKNOWN = ("[UNK]", "<unk>")


class PairTokens:
    """A model's tokenizer, whose post-processor puts a pair together, and its context.

    Args:
        folder: the model's.
        context_tokens: the most tokens of a pair, with the tokenizer's special tokens.
        known_tokens: how many tokens the model has vectors for.

    Raises:
        ModelLoadFailed: there is no ``tokenizer.json``.
    """

    def __init__(self, folder: Path, context_tokens: int, known_tokens: int) -> None:
        self._tokenizer = open_tokenizer(folder)
        self._tokenizer.encode_special_tokens = True
        added = self._tokenizer.get_added_tokens_decoder()
        self._special = frozenset(token_id for token_id, token in added.items() if token.special)
        ids = [self._tokenizer.token_to_id(name) for name in UNKNOWN]
        self._unknown = next((token_id for token_id in ids if token_id is not None), None)
        self._context_tokens = context_tokens
        self._known_tokens = known_tokens

    def rows(self, query: str, documents: Sequence[str]) -> list[Row]:
        """The query with each document. A document loses its end where the pair is longer than the context.

        Raises:
            ContextExceeded: the query leaves no room for a document.
            InvalidRequest: the model has no vector for a token.
        """
        pairs = self._tokenizer.encode_batch([(query, document) for document in documents])
        return [self._row(place, pair) for place, pair in enumerate(pairs)]

    def _row(self, place: int, pair: Encoding) -> Row:
        ids, types = self._without_special(pair), list(pair.type_ids)
        require_known(f"query, documents[{place}]", ids, self._known_tokens)
        excess = len(ids) - self._context_tokens
        if excess <= 0:
            return Row(ids, types=types)
        document = [n for n, text in enumerate(pair.sequence_ids) if text == 1]
        if excess >= len(document):
            raise ContextExceeded(
                f"query: has {pair.sequence_ids.count(0)} tokens, and the model takes {self._context_tokens}, a document's "
                "among them: send a shorter query"
            )
        left_out = {*document[-excess:]}
        kept = [n for n in range(len(ids)) if n not in left_out]
        return Row(
            [ids[n] for n in kept],
            types=[types[n] for n in kept],
            warning=f"documents[{place}]: {excess} of its {len(document)} tokens, at its end, were left out: the model takes "
            f"{self._context_tokens} with the query; send shorter pieces",
        )

    def _without_special(self, pair: Encoding) -> list[int]:
        """The ids. A vocabulary whose pieces include special tokens makes one of text all the same: that counts as unknown."""
        if self._unknown is None:
            return list(pair.ids)
        return [
            self._unknown if text is not None and token_id in self._special else token_id
            for token_id, text in zip(pair.ids, pair.sequence_ids, strict=True)
        ]

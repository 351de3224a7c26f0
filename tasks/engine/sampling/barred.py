"""Tokens that a model's authors let it never say, or not at the beginning of an answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.errors import ModelLoadFailed
from tasks.models.generation import FILE

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

#: Added to the logit of a barred token. A grammar that allows nothing else still has it, and the likeliest of several such: a
#: float of 32 bits keeps thousandths beside this number.
BARRED = -1e4


@dataclass(slots=True, frozen=True)
class Barred:
    """Ids that never come, and ids that no answer begins with."""

    always: tuple[int, ...] = ()
    first: tuple[int, ...] = ()

    def within(self, vocabulary_tokens: int) -> Barred:
        """Those of them that the model has."""
        return Barred(
            *(tuple(token for token in ids if token < vocabulary_tokens) for ids in (self.always, self.first))
        )

    def require_others(self, known: Collection[int], folder: Path) -> None:
        """Check that a token is left for an answer, and for its beginning.

        Args:
            known: the ids that the tokenizer has a text for.
            folder: the model's.

        Raises:
            ModelLoadFailed: all of them are barred: the drawn token would mean nothing.
        """
        for fields, when, ids in (
            ("suppress_tokens and bad_words_ids", "", self.always),
            ("begin_suppress_tokens", " at the beginning of an answer", self.always + self.first),
        ):
            if ids and set(known) <= set(ids):
                raise ModelLoadFailed(
                    f"{folder / FILE}: {fields} bar all {len(known)} tokens of the vocabulary{when}: take out those that an "
                    "answer may have"
                )

    def bias(self, asked: Mapping[int, float], *, first: bool) -> Mapping[int, float]:
        """Return the bias of logits in an answer's first draw, or a later one; a request's own word on a token goes before."""
        ids = self.always + self.first if first else self.always
        return {**dict.fromkeys(ids, BARRED), **asked} if ids else asked


#: For most models.
NONE_BARRED = Barred()

"""From token ids to text of each kind, one token at a time: what an answer says, and when a stop string ends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.engine.text.detokenizer import vocabulary_of
from tasks.engine.text.piece import Piece
from tasks.engine.text.stop import StopMatcher

if TYPE_CHECKING:
    from mlx_lm.tokenizer_utils import TokenizerWrapper

    from tasks.messages.answer import Kind


class TextAssembler:
    """Ids in, text out: never half a character, never a part of a stop string.

    Without stop strings the released text equals ``tokenizer.decode(ids, skip_special_tokens=True,
    clean_up_tokenization_spaces=False)``: a leading space stays where the tokenizer's own decoder keeps it. Bytes that
    are no UTF-8 become U+FFFD, one for each maximal invalid part. Special and end tokens have no text.

    Making one costs microseconds: what is known of the vocabulary is shared by all assemblers of a tokenizer.
    """

    __slots__ = ("_decoder", "_matcher")

    def __init__(self, tokenizer: TokenizerWrapper, stop: tuple[str, ...] = ()) -> None:
        self._decoder = vocabulary_of(tokenizer).decoder()
        self._matcher = StopMatcher(stop)

    @property
    def kind(self) -> Kind:
        """What the next text is."""
        return "content"

    @property
    def stopped(self) -> bool:
        """Whether a stop string was completed. The text before it has been released, and no more will be."""
        return self._matcher.stopped

    def push(self, token_id: int) -> list[Piece]:
        """Take the next token and return the text that may be released now, perhaps none."""
        return _content(self._matcher.push(self._decoder.push(token_id)))

    def finish(self) -> list[Piece]:
        """Return what was held back and is due at the end: nothing after a stop string."""
        return _content(self._matcher.push(self._decoder.finish()) + self._matcher.finish())


def _content(text: str) -> list[Piece]:
    return [Piece("content", text)] if text else []

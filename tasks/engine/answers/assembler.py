"""Turns token ids into text of each kind, one token at a time, and ends an answer at a stop string."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.engine.text.channels import OneChannel
from tasks.engine.text.detokenizer import vocabulary_of
from tasks.engine.text.piece import Piece, joined
from tasks.engine.text.stop import StopMatcher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlx_lm.tokenizer_utils import TokenizerWrapper

    from tasks.engine.text.formats import Format
    from tasks.engine.tools.splitter import Splitter
    from tasks.messages.answer import Kind


class TextAssembler:
    """Ids in, text of each kind out: never half a character, never a part of a marker or of a stop string.

    Without markers and stop strings the released text equals ``tokenizer.decode(ids, skip_special_tokens=True,
    clean_up_tokenization_spaces=False)``: a leading space stays where the tokenizer's own decoder keeps it. Bytes that
    are no UTF-8 become U+FFFD, one for each maximal invalid part. Special and end tokens have no text.

    Stop strings are looked for in the answer alone: a thought that mentions one goes on. One that is, or has in it, the name
    of a special token means that token, and the token alone ends a thought too.

    Making one costs microseconds: all assemblers of a tokenizer share its vocabulary.

    Args:
        tokenizer: the model's.
        stop: the request's stop strings.
        form: how the model marks its reasoning; ``None``: it has none.
        tail: how the prompt ends: the model may be in a thought already.
        splitter: takes calls of functions out of the answer; ``None``: it has none.
    """

    __slots__ = ("_channels", "_decoder", "_ended", "_marks", "_matcher", "_splitter", "_stops")

    def __init__(
        self,
        tokenizer: TokenizerWrapper,
        stop: tuple[str, ...] = (),
        form: Format | None = None,
        tail: str = "",
        splitter: Splitter | None = None,
    ) -> None:
        vocabulary = vocabulary_of(tokenizer)
        markers = form.marks if form is not None else {}
        if splitter is not None:
            markers = {**markers, **splitter.form.marks}
        self._decoder = vocabulary.decoder()
        self._stops = vocabulary.special.stops(stop, markers)
        self._matcher = StopMatcher(self._stops.words)
        self._marks = {**markers, **self._stops.marks} if self._stops.marks else markers
        calls = splitter.form.names if splitter is not None else {}
        self._channels = form.channels(tail, self._stops.words, calls) if form is not None else OneChannel()
        self._splitter = splitter
        self._ended = False

    @property
    def kind(self) -> Kind:
        """The kind of the next text, as far as is known."""
        return self._channels.kind

    @property
    def stopped(self) -> bool:
        """Whether a stop string was completed, or the one call that was asked for. No more will be released."""
        return (
            self._ended
            or self._matcher.stopped
            or self._channels.stopped
            or (self._splitter is not None and self._splitter.stopped)
        )

    @property
    def calls(self) -> int:
        """The number of calls of functions in the answer."""
        return self._splitter.calls if self._splitter is not None else 0

    @property
    def warnings(self) -> Sequence[str]:
        """The parts of the answer that are not as they were asked for."""
        return self._splitter.warnings if self._splitter is not None else ()

    def push(self, token_id: int) -> list[Piece]:
        """Take the next token and return the text that may be released now, perhaps none."""
        if token_id in self._stops.ends:
            self._ended = True
            return []
        mark = self._marks.get(token_id)
        text = self._decoder.push(token_id) if mark is None else self._decoder.cut() + mark
        return self._released(self._split(self._channels.push(text))) if text else []

    def finish(self) -> list[Piece]:
        """Return the held-back text that is due at the end: none after a stop string."""
        held = self._split(self._channels.push(self._decoder.finish()) + self._channels.finish())
        if self._splitter is not None:
            held += self._splitter.finish()
        pieces = self._released(held)
        return joined((*pieces, Piece("content", self._stops.shown(self._matcher.finish()))))

    def _split(self, pieces: list[Piece]) -> list[Piece]:
        """The pieces with calls taken out of their content."""
        if self._splitter is None:
            return pieces
        found: list[Piece] = []
        for piece in pieces:
            found += self._splitter.push(piece.text) if piece.kind == "content" else (piece,)
        return found

    def _released(self, pieces: list[Piece]) -> list[Piece]:
        """Return the pieces without text that may be, or is, a stop string."""
        if len(pieces) == 1 and pieces[0].kind == "content":  # as nearly always
            text = self._stops.shown(self._matcher.push(pieces[0].text))
            return [Piece("content", text)] if text else []
        released: list[Piece] = []
        for piece in pieces:
            if self._matcher.stopped:
                break
            if piece.kind == "content":
                released.append(Piece("content", self._matcher.push(piece.text)))
            else:
                # The answer is interrupted: a stop string does not reach over a thought or a call.
                released += (Piece("content", self._matcher.finish()), piece)
        return joined(piece._replace(text=self._stops.shown(piece.text)) for piece in released)

"""One request inside the engine: its tokens, its text and where it ends."""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from tasks.engine.text.piece import Piece, joined
from tasks.errors import CannotResume
from tasks.messages.engine import Failed, Finished, Started, TokenLogprob, Tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.engine.constraint.grammar import Grammar
    from tasks.messages.answer import FinishReason, Kind
    from tasks.messages.engine import Event, Submit

#: In which order text comes that no token is left for.
_ORDER: tuple[Kind, ...] = ("reasoning", "content", "tool_call")


class Assembler(Protocol):
    """Ids in, text of each kind out: :class:`tasks.engine.answers.assembler.TextAssembler`, or the fake engine's."""

    @property
    def kind(self) -> Kind:
        """The kind of the next text, as far as is known: a token without text of its own counts as this."""
        ...

    @property
    def stopped(self) -> bool:
        """Whether a stop string was completed, or the one call that was asked for."""
        ...

    @property
    def calls(self) -> int:
        """The number of calls of functions in the answer."""
        ...

    @property
    def warnings(self) -> Sequence[str]:
        """The parts of the answer that are not as they were asked for."""
        ...

    def push(self, token_id: int, /) -> list[Piece]:
        """Take the next token, return the text that may be shown now."""
        ...

    def finish(self) -> list[Piece]:
        """Return the text that was held back."""
        ...


@dataclass(slots=True, eq=False, kw_only=True)
class Request:
    """A tokenised request. ``ids`` are its tokens so far, those of earlier attempts included.

    ``limit`` bounds ``ids``, ``owed`` is text that is due with the next events, and ``ahead`` counts, by kind, characters
    that an earlier attempt emitted already although this one's assembler still has to release them; ``named`` counts the
    calls whose names it emitted. ``passed_over_at`` is
    when another request first overtook it, ``held_at`` when it began to wait for promised memory, ``ran_out_alone`` that it
    once ran out of memory with the batch to itself. ``revision`` is what an attempt that resumes this one has to have too.
    """

    uid: int
    submit: Submit
    prompt: list[int]
    prompt_hash: str
    limit: int
    end_ids: frozenset[int]
    assembler: Assembler
    grammar: Grammar | None = None
    revision: str = ""
    rendering: str = ""
    ids: list[int] = field(default_factory=list)
    owed: list[Piece] = field(default_factory=list)
    ahead: dict[Kind, int] = field(default_factory=dict)
    named: int = 0
    cached_tokens: int = 0
    started: bool = False
    passed_over_at: float | None = None
    held_at: float | None = None
    ran_out_alone: bool = False
    reason: FinishReason | None = None
    failed: bool = False

    @property
    def done(self) -> bool:
        """Whether it has ended, well or not."""
        return self.failed or self.reason is not None

    @property
    def task_id(self) -> str:
        """The request's name on the wire."""
        return self.submit.task_id

    @property
    def most_tokens(self) -> int:
        """Prompt and answer, at the longest."""
        return len(self.prompt) + self.limit

    def resume(self) -> None:
        """Take over the tokens of an earlier attempt; ``reason`` is set where they already complete the request."""
        resume = self.submit.resume
        assert resume is not None
        self.ahead, self.named = dict(resume.characters), resume.calls
        for token_id in resume.ids:
            if token_id in self.end_ids:
                self.reason = "stop"
                break
            self.ids.append(token_id)
            self._owe(self.assembler.push(token_id))
            if self._ended():
                break
        if self.reason != "stop" and self.grammar is not None:
            self._resume_grammar(self.grammar)
        if self.reason is not None:
            self._owe(self.assembler.finish())

    def _resume_grammar(self, grammar: Grammar) -> None:
        matcher = grammar.matcher(self.ids)
        if matcher.error:
            raise CannotResume(f"the earlier attempt's tokens are not of the constraint's language: {matcher.error}")
        if matcher.complete:
            self.reason = "stop"

    def start(self) -> Event:
        """Announce the request, once."""
        self.started = True
        warnings = self.grammar.warnings if self.grammar is not None else ()
        return Started(
            *(self.task_id, len(self.prompt), self.cached_tokens, self.prompt_hash, self.rendering, self.revision),
            warnings,
        )

    def take(self, token_id: int, logprob: TokenLogprob | None = None, *, complete: bool = False) -> list[Event]:
        """The events of one more token; afterwards ``reason`` says whether it was the last.

        ``complete`` says that the constraint allows none after it.
        """
        if token_id in self.end_ids:
            return self.finish("stop")
        index = len(self.ids)
        self.ids.append(token_id)
        self._owe(self.assembler.push(token_id))
        if complete:
            self.reason = "stop"
        if self._ended():
            self._owe(self.assembler.finish())
        # One kind for each event: where a token completes text of two kinds, the second is due with the next token.
        due = self.owed.pop(0) if self.owed else Piece(self.assembler.kind, "")
        logprobs = None if logprob is None else [logprob]
        events: list[Event] = [self._tokens(index, [token_id], due, logprobs)]
        if self.reason is not None:
            events += [*self._rest(), self._finished()]
        return events

    def finish(self, reason: FinishReason) -> list[Event]:
        """The events of an end without a token: an end token, an abort, or an end that a resume found."""
        if self.reason is None:
            self._owe(self.assembler.finish())
        self.reason = reason
        return [*self._rest(), self._finished()]

    def fail(self, code: str, message: str) -> Event:
        """The event of an end by an error."""
        self.failed = True
        return Failed(self.task_id, code, message)

    def _ended(self) -> bool:
        if self.reason is not None or self.assembler.stopped:
            self.reason = "stop"
        elif len(self.ids) >= self.limit:
            self.reason = "length"
        return self.reason is not None

    def _owe(self, pieces: list[Piece]) -> None:
        """Owe this text, except for the part that an earlier attempt has sent."""
        for piece in pieces:
            sent = min(self.ahead.get(piece.kind, 0), len(piece.text))
            if sent:
                self.ahead[piece.kind] -= sent
            name = "" if piece.call is not None and piece.call < self.named else piece.name
            self.owed = joined((*self.owed, piece._replace(text=piece.text[sent:], name=name)))

    def _rest(self) -> list[Event]:
        """Text that no token is left for, in at most one event of each kind and call: so readers tell it from its copy."""
        rest = joined(sorted(self.owed, key=lambda piece: (_ORDER.index(piece.kind), piece.call or 0)))
        self.owed = []
        return [self._tokens(len(self.ids), [], piece) for piece in rest]

    def _tokens(self, index: int, ids: list[int], due: Piece, logprobs: list[TokenLogprob] | None = None) -> Tokens:
        return Tokens(self.task_id, index, ids, due.text, logprobs, due.kind, due.call, due.name)

    def _finished(self) -> Event:
        assert self.reason is not None
        reason: FinishReason = "tool_calls" if self.reason == "stop" and self.assembler.calls else self.reason
        warnings = tuple(self.assembler.warnings)
        return Finished(self.task_id, reason, len(self.prompt), self.cached_tokens, len(self.ids), warnings)


def prompt_hash(ids: list[int]) -> str:
    """A digest of a prompt's token ids (BLAKE2b over 32-bit integers), equal on every machine."""
    values = array("I", ids)
    return hashlib.blake2b(values.tobytes(), digest_size=16).hexdigest()

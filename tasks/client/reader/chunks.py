"""Chunks of text as a reader sees them: each index once and in order, whatever pub/sub drops, repeats or delays."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from tasks.errors import AnswerChanged, JournalFailed
from tasks.messages.journal import Claim, End, Error, Release, Start, Token
from tasks.messages.tools import delta

if TYPE_CHECKING:
    from tasks.messages.answer import Usage
    from tasks.messages.journal import Entry

#: Token ids are below.
_MOST_IDS = 2**32
# How many characters before a chunk are compared with it, where it may overlap the text that was seen.
_TAIL_CHARACTERS = 1_024


@dataclass(slots=True, kw_only=True)  # a frozen one takes twice as long to make
class Chunk:
    """Tokens ``index`` … ``index + len(ids) - 1`` and the text of one kind that they completed, which may be empty.

    ``kind`` is ``content`` for the answer, ``reasoning`` for what the model thinks, and ``tool_call`` for a part of a call of a
    function; skip kinds that you do not know. Of a call, ``text`` is a part of its arguments' JSON, and ``tool_call`` the same
    in the shape of OpenAI's streams: ``index``, the number of the call, ``function.arguments``, and in the call's first chunk
    its ``id``, ``type`` and ``function.name``. The last chunk has a ``finish_reason``
    (:data:`tasks.messages.answer.FinishReason`), ``usage`` in tokens, ``timing`` in ms and ``warnings``, and in general no text.
    ``logprobs`` has one dictionary for each id, where they were asked for.
    """

    text: str
    index: int
    ids: list[int] = field(default_factory=list)
    kind: str = "content"
    logprobs: list[dict[str, Any]] | None = None
    finish_reason: str | None = None
    usage: Usage | None = None
    timing: dict[str, float | None] | None = None
    tool_call: dict[str, Any] | None = None
    warnings: list[str] | None = None


#: Whose text it is: a kind's, or one call's.
Voice: TypeAlias = tuple[str, int | None]
#: What comes out of an :class:`Assembly`. After a chunk with a ``finish_reason``, or an error, nothing follows.
Outcome: TypeAlias = Chunk | Error


class Assembly:
    """Puts the entries of one journal in order. Fed by one thread; others may look at its attributes.

    Attributes:
        next_index: the index that the next token has.
        ended: its end or error has come out.
        gap: something is missing between what came out and what was heard last: the stream has to be read.
        rewritten: the stream is another one than what came out was taken from: it has to be read from its start.
        worker: the worker that holds the request, as far as is known; ``None`` where none does.
        attempt: the number of its last claim.
        prompt_tokens: the prompt's length, once it was tokenised.
    """

    def __init__(self) -> None:
        self.next_index = 0
        self.ended = False
        self.gap = False
        self.rewritten = False
        self.worker: str | None = None
        self.attempt = 0
        self.prompt_tokens: int | None = None
        self._nonce = ""
        self._ids = array("L")
        self._tails: dict[Voice, str] = {}
        self._flushed: set[tuple[int, Voice]] = set()

    def hear(self, entry: Entry) -> Outcome | None:
        """Take an entry from the channel, which may have dropped others before it."""
        if isinstance(entry, Error):
            # It has no index that would show whether all before it were heard.
            self.gap = not self.ended
            return None
        return self._take(entry, whole=False)

    def read(self, entry: Entry, *, whole: bool) -> Outcome | None:
        """Take an entry from the stream. ``whole``: read from its start, so what is missing here is missing for good."""
        return self._take(entry, whole)

    def _take(self, entry: Entry, whole: bool) -> Outcome | None:
        if self.ended:
            return None
        if isinstance(entry, Token):
            return self._take_token(entry, whole) if _is_sound(entry) else None
        if isinstance(entry, End):
            return self._take_end(entry, whole)
        if isinstance(entry, Error):
            self.ended = True
            return entry
        self._note(entry, whole)
        return None

    def _take_token(self, token: Token, whole: bool) -> Outcome | None:
        if token.index > self.next_index:
            # A later attempt writes the missing entries again, behind this one.
            self.gap = not whole
            return None
        after, voice = token.index + len(token.ids), (token.kind, token.call)
        seen = list(self._ids[token.index : after]) if token.index < self.next_index else []
        if seen != token.ids[: len(seen)]:
            return self._contradict(token.index)
        if after < self.next_index or (token.ids and after == self.next_index):
            return None
        if not token.ids:
            # Text that was held back until the end comes without ids, once for each kind and call: the one thing an index
            # cannot tell from its copy.
            if (token.index, voice) in self._flushed:
                return None
            self._flushed.add((token.index, voice))
        tail = self._tails.get(voice, "")
        text = _unseen(tail, token.text) if seen else token.text
        self.next_index = after
        ids = token.ids[len(seen) :]
        self._ids.extend(ids)
        self._tails[voice] = (tail + text)[-_TAIL_CHARACTERS:]
        return Chunk(
            text=text,
            index=token.index + len(seen),
            ids=ids,
            kind=token.kind,
            logprobs=token.logprobs[len(seen) :] if token.logprobs else token.logprobs,
            tool_call=None if token.call is None else delta(token.call, text, token.call_id, token.name),
        )

    def _take_end(self, end: End, whole: bool) -> Outcome | None:
        count = end.index if isinstance(end.index, int) else self.next_index
        if count > self.next_index and not whole:
            self.gap = True
            return None
        self.ended = True
        if count > self.next_index:
            missing = f"tokens {self.next_index} to {count - 1} are missing in the request's journal"
            return Error(attempt=self.attempt, code=JournalFailed.code, message=f"{missing}; send it again")
        reason = str(end.finish_reason)
        if count < self.next_index and reason in ("stop", "length", "tool_calls"):
            return self._contradict(count)
        return Chunk(
            text="",
            index=self.next_index,
            finish_reason=reason,
            usage=end.usage,
            timing=end.timing,
            warnings=end.warnings or None,
        )

    def _contradict(self, index: int) -> Error:
        """Return the error of an answer that was computed again, with another text than its reader has."""
        self.ended = True
        return Error(attempt=self.attempt, code=AnswerChanged.code, message=changed(f"from token {index} on"))

    def _note(self, entry: Claim | Start | Release, whole: bool) -> None:
        if isinstance(entry, Claim):
            attempt = entry.attempt if isinstance(entry.attempt, int) else 0
            self.rewritten = not (whole or attempt > self.attempt or entry.nonce == self._nonce)
            self.worker, self.attempt, self._nonce = entry.worker, attempt, entry.nonce
        elif isinstance(entry, Start):
            self.prompt_tokens = entry.prompt_tokens
        else:
            self.worker = None


def call_chunk(number: int, call: dict[str, Any], index: int, seen: str | None = None) -> Chunk:
    """Return a whole call of an answer as one chunk, or the rest of it after this much of its arguments."""
    function = call["function"]
    text = str(function["arguments"]).removeprefix(seen or "")
    first = (call["id"], function["name"]) if seen is None else ()
    return Chunk(text=text, index=index, kind="tool_call", tool_call=delta(number, text, *first))


def changed(where: str) -> str:
    """Explain what has happened to an answer of which Redis lost a part, and what to do."""
    return (
        f"Redis lost a part of this request, and it was computed again with another text {where}: what was read is not its "
        "answer; stream() it again from its start"
    )


def _is_sound(token: Token) -> bool:
    """Whether the fields that order depends on are what they should be; an entry with others is skipped."""
    return (
        isinstance(token.index, int)
        and token.index >= 0
        and isinstance(token.ids, list)
        and all(map(_is_id, token.ids))
        and isinstance(token.text, str)
        and isinstance(token.kind, str)
        and (token.logprobs is None or isinstance(token.logprobs, list))
        and token.choice == 0
        and (token.call is None or isinstance(token.call, int))
    )


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < _MOST_IDS


def _unseen(seen: str, text: str) -> str:
    """The text without its longest beginning that was seen last.

    Needed where Redis lost a journal and its request was run again, in chunks that begin elsewhere.
    """
    longest = min(len(seen), len(text))
    overlap = next((size for size in range(longest, 0, -1) if seen.endswith(text[:size])), 0)
    return text[overlap:]

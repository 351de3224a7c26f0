"""One reader's patience, and the chunks that follow from a journal's events and from Celery's stored result."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tasks.broker.waiting.absence import Absence
from tasks.broker.waiting.result_watch import LOST_AFTER_S, unknown
from tasks.client.reader.chunks import Chunk, call_chunk, changed
from tasks.client.reader.journal_watch import Quiet
from tasks.client.reader.text_buffer import TextBuffer
from tasks.errors import AnswerChanged, Cancelled, GenerationError, StreamTimeout, UnknownRequest, error_for
from tasks.messages.journal import Error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.client.reader.chunks import Voice
    from tasks.client.reader.journal_watch import Event, JournalWatch
    from tasks.messages.answer import Usage


@dataclass(slots=True, frozen=True, kw_only=True)
class Stored:
    """A request's result in Celery's backend.

    ``final``: it will not change any more. ``absent``: nothing is stored, and nothing else has to end before the request is sent.
    ``expected``: something has, and it is known.
    """

    state: str = ""
    final: bool = False
    absent: bool = False
    expected: bool = False
    text: str = ""
    reasoning: str = ""
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] | None = None
    logprobs: list[dict[str, Any]] | None = None
    finish_reason: str = "stop"
    usage: Usage | None = None
    timing: dict[str, float | None] | None = None
    error: BaseException | None = None


class Reading:
    """One reader's patience, and its chunks: the part that blocking and asyncio readers have in common."""

    def __init__(
        self,
        task_id: str,
        place: JournalWatch,
        timeout: float | None,
        idle_timeout: float | None,
        unknown_after_s: float,
    ) -> None:
        self.task_id = task_id
        self.is_over = False
        self._place = place
        self._timeout, self._idle_timeout = timeout, idle_timeout
        self._began_at = self._waiting_since = self._chunk_at = time.monotonic()
        self._has_passed = False
        self._seen_text: defaultdict[Voice, TextBuffer] = defaultdict(TextBuffer)
        self._next_index = 0
        self._state = ""
        self._problem = ""
        self._unknown_after_s = unknown_after_s
        self._absence = Absence()
        self._was_known = False
        #: Nothing at all is known of the request, for too long: :meth:`conclude` has to be called.
        self.seems_unknown = False

    def patience_s(self, *, waiting: bool) -> float | None:
        """Return how long to wait for the next event; ``None`` means without a bound. Events that are there are always taken.

        Raises:
            StreamTimeout: there is nothing, and no patience left.
        """
        has_bounds = self._absence.is_on or self._timeout is not None or self._idle_timeout is not None
        if not waiting or not has_bounds:
            return None
        now = time.monotonic()
        left = [self._look_once_more(now)] if self._absence.is_on else []
        limits = (("timeout", self._timeout, self._began_at), ("idle_timeout", self._idle_timeout, self._waiting_since))
        for name, limit_s, since in limits:
            if limit_s is None:
                continue
            if now >= since + limit_s:
                raise StreamTimeout(f"request {self.task_id}: {name}={limit_s:g} s is over: {self._what_is_known()}")
            left.append(since + limit_s - now)
        return min(left, default=None)

    def come_back(self) -> None:
        """The caller has dealt with the chunks it was given, however long that took it."""
        if self._has_passed:
            self._has_passed = False
            self._waiting_since = time.monotonic()

    def doubts(self, event: Event) -> bool:
        """Whether Celery has to be asked if the request has ended, as its journal says nothing."""
        return isinstance(event, Quiet) and not event.problem and not self.is_over

    def take(self, event: Event) -> list[Chunk]:
        """The chunks of an event: one, or none.

        Raises:
            GenerationError: the event is the request's error, or Redis is out of reach.
        """
        if self.is_over:
            return []
        if isinstance(event, Chunk):
            return [self._pass(event)]
        if isinstance(event, Error):
            return self._fail(event)
        if isinstance(event, GenerationError):
            self.is_over = True
            raise event
        self._problem = event.problem
        self._absence.interrupt(time.monotonic())
        return []

    def complete(self, event: Event, stored: Stored) -> list[Chunk]:
        """Return the chunks that follow from the stored result, for a reader whose journal is silent.

        Raises:
            BaseException: the stored error.
        """
        assert isinstance(event, Quiet)
        self._problem, self._state = "", stored.state
        if not stored.final:
            self._note_absence(absent=stored.absent and event.known is False, known=event.known or stored.expected)
            return []
        if not event.asked:
            # The journal's end comes before the result, and may have come since the stream was read.
            self._place.read_again()
            return []
        self.is_over = True
        if stored.error is not None:
            raise stored.error
        if stored.state == "SUCCESS" and not stored.text.startswith(self._seen_of("content")):
            raise AnswerChanged(f"request {self.task_id}: {changed('than is stored')}")
        reasoning = self._unseen("reasoning", stored.reasoning)
        chunks = [self._pass(Chunk(text=reasoning, index=self._next_index, kind="reasoning"))] if reasoning else []
        chunks += map(self._pass, self._unseen_calls(stored.tool_calls))
        return [
            *chunks,
            self._pass(
                Chunk(
                    text=self._unseen("content", stored.text),
                    index=self._next_index,
                    logprobs=stored.logprobs[self._next_index :] if stored.logprobs else None,
                    finish_reason=stored.finish_reason,
                    usage=stored.usage,
                    timing=stored.timing,
                    warnings=stored.warnings,
                )
            ),
        ]

    def _unseen(self, kind: str, text: str) -> str:
        """Return the part of a stored text that this reader has not given its caller; none if the two are not the same answer."""
        seen = self._seen_of(kind)
        return text.removeprefix(seen) if text.startswith(seen) else ""

    def _unseen_calls(self, calls: list[dict[str, Any]]) -> Iterator[Chunk]:
        """Yield the parts of stored calls that this reader has not given its caller."""
        for number, call in enumerate(calls):
            seen = self._seen_of("tool_call", number) if ("tool_call", number) in self._seen_text else None
            if seen is None or call["function"]["arguments"] != seen:
                yield call_chunk(number, call, self._next_index, seen)

    def _seen_of(self, kind: str, call: int | None = None) -> str:
        seen = self._seen_text.get((kind, call))
        return "" if seen is None else str(seen)

    def _note_absence(self, *, absent: bool, known: bool | None) -> None:
        self._was_known = self._was_known or bool(known)
        if not absent or not self._unknown_after_s:
            self._absence.end()
            return
        now = time.monotonic()
        self._absence.note(now)
        self.seems_unknown = self._absence.left_s(now, self._grace_s) <= 0

    def conclude(self, *, is_mentioned: bool) -> None:
        """Wait on for a request that seems to be unknown, since some message has its id; or give it up.

        Raises:
            UnknownRequest: none has.
        """
        self.seems_unknown = False
        self._absence.end()
        if not is_mentioned:
            self.is_over = True
            raise UnknownRequest(unknown(self.task_id, was_known=self._was_known))
        self._was_known = True

    @property
    def _grace_s(self) -> float:
        return LOST_AFTER_S if self._was_known else self._unknown_after_s

    def _look_once_more(self, now: float) -> float:
        """Have the stream read when a request that nobody knows has been looked for long enough; when that is."""
        left_s = self._absence.left_s(now, self._grace_s)
        if left_s <= 0:
            self._place.read_again()
            return 1.0
        return left_s

    def _pass(self, chunk: Chunk) -> Chunk:
        self._problem, self._has_passed = "", True
        self._chunk_at = time.monotonic()
        call = chunk.tool_call["index"] if chunk.tool_call is not None else None
        self._seen_text[chunk.kind, call].add(chunk.text)
        self._next_index = chunk.index + len(chunk.ids)
        self.is_over = chunk.finish_reason is not None
        return chunk

    def _fail(self, error: Error) -> list[Chunk]:
        if error.code == Cancelled.code:
            return [self._pass(Chunk(text="", index=self._next_index, finish_reason="cancelled"))]
        self.is_over = True
        raise error_for(str(error.code))(str(error.message))

    def _what_is_known(self) -> str:
        now = time.monotonic()
        assembly = self._place.assembly
        if self._problem:
            known = f"Redis cannot be reached ({self._problem})"
        elif not self._place.reads:
            known = "Redis has not answered yet"
        elif not assembly.attempt:
            known = f"no worker has claimed it in the {now - self._began_at:.1f} s since this reader began"
        elif assembly.worker is None:
            known = f"its worker gave it back after attempt {assembly.attempt}, and no other has claimed it yet"
        elif not self._next_index:
            prompt = f", prompt of {assembly.prompt_tokens} tokens" if assembly.prompt_tokens is not None else ""
            known = f"worker {assembly.worker} has claimed it (attempt {assembly.attempt}{prompt}), no token yet"
        else:
            quiet_s = now - self._chunk_at
            known = f"worker {assembly.worker} has sent {self._next_index} tokens, the last {quiet_s:.1f} s ago"
        return known + (f" (Celery's state: {self._state})" if self._state else "")


def describe(meta: dict[str, Any]) -> Stored:
    """Return the meaning of a Celery result's metadata, as its backend decodes it, for a reader."""
    state = str(meta.get("status"))
    result = meta.get("result")
    if state == "REVOKED":
        return Stored(state=state, final=True, finish_reason="cancelled")
    if state == "FAILURE":
        known = isinstance(result, BaseException)
        return Stored(state=state, final=True, error=result if known else GenerationError(str(result)))
    if state == "SUCCESS":
        answer = result if isinstance(result, dict) else {}
        return Stored(
            state=state,
            final=True,
            text=str(answer.get("text", "")),
            reasoning=str(answer.get("reasoning") or ""),
            tool_calls=answer.get("tool_calls") or [],
            warnings=answer.get("warnings"),
            logprobs=answer.get("logprobs"),
            finish_reason=str(answer.get("finish_reason", "stop")),
            usage=answer.get("usage"),
            timing=answer.get("timing"),
        )
    return Stored(state=state, absent=state == "PENDING")

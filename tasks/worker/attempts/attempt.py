"""One attempt at one request on this worker, from its claim to its end."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from tasks.client.answers.answer import Answer
from tasks.client.request.structure import parsed
from tasks.errors import error_for
from tasks.journal.items import Append
from tasks.messages.answer import usage_of
from tasks.messages.embedding import Embedded
from tasks.messages.engine import Event, Failed, Finished, Resume, Started, Tokens
from tasks.messages.journal import End, Entry, Error, Release, Start, Token, contiguous
from tasks.messages.tools import Calls, call_id, delta

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tasks.journal.claim_answer import ClaimAnswer
    from tasks.journal.items import Held
    from tasks.messages.answer import FinishReason, Usage
    from tasks.messages.engine import Isolation
    from tasks.worker.attempts.job import StopReason


@dataclass(slots=True, frozen=True)
class Fenced:
    """Another worker holds the request, or somebody ended it: this run stores and announces nothing."""


#: How an attempt can come out, once Redis has it.
Outcome: TypeAlias = End | Error | Release | Fenced


class Attempt:
    """The events of the engine about one request so far, and how many of them are in the journal.

    Args:
        task_id: the request.
        claim: the answer that gave it to this worker.
        model: the model's name, for the journal.
        held: says which message this worker holds of it.
    """

    def __init__(
        self,
        task_id: str,
        claim: ClaimAnswer,
        model: str,
        held: Callable[[], Held | None] = lambda: None,
    ) -> None:
        self.task_id = task_id
        self.held = held
        self.number = claim.attempt
        self.nonce = claim.nonce
        self.model = model
        self.queued_ms = claim.queued_ms
        self.claimed_at = time.monotonic()
        self.first_token_at: float | None = None
        self.last_token_at: float | None = None
        self.stop_reason: StopReason | None = None
        self.limit_s: float | None = None
        #: Its end is on its way to the journal, so readers may know of it before this process hears that it is there.
        self.is_ending = False
        self.isolate: Isolation = ""
        self.gives_way = False
        #: Whether a reader listened as its last tokens were written; ``None`` before there were any.
        self.is_heard: bool | None = None
        #: The whole journal, so that this worker can write what Redis loses of it.
        self.items: list[Append] = list(claim.items)
        self.prompt_tokens = 0
        self.cached_tokens = 0
        #: The parts of the request's constraint that are not enforced.
        self.warnings: list[str] = []
        self._first = next((entry for entry in claim.entries if isinstance(entry, Start)), None)
        if self._first is not None:
            self.warnings = self._first.warnings
        # Without a start it is not known which prompt and model the tokens belong to: everything is computed again.
        earlier = contiguous(claim.entries) if self._first is not None else []
        self.ids: list[int] = [token for entry in earlier for token in entry.ids]
        self._parts: list[tuple[str, str]] = [(entry.kind, entry.text) for entry in earlier]
        self._calls = Calls()
        for entry in earlier:
            self._note_call(entry)
        self.reasoning_tokens = sum(len(entry.ids) for entry in earlier if entry.kind == "reasoning")
        self._logprobs: list[dict[str, Any]] = [logprob for entry in earlier for logprob in entry.logprobs or []]
        self._resumed_tokens = len(self.ids)
        #: The journal has its end already, and this attempt's tokens are written nowhere.
        self.is_recorded = False
        self._outcome: Outcome | None = None
        self._finished = threading.Event()

    @property
    def text(self) -> str:
        """The answer so far, without its reasoning."""
        return self._text_of("content")

    @property
    def reasoning(self) -> str:
        """All reasoning so far."""
        return self._text_of("reasoning")

    @property
    def usage(self) -> Usage:
        """The tokens of the request so far, over all attempts."""
        return usage_of(self.prompt_tokens, self.cached_tokens, len(self.ids), self.reasoning_tokens)

    @property
    def logprobs(self) -> list[dict[str, Any]]:
        """All log-probabilities so far, in OpenAI's shape."""
        return self._logprobs

    @property
    def has_resumed(self) -> bool:
        """Whether earlier attempts had tokens, which this one computes together with the prompt."""
        return self._resumed_tokens > 0

    def resume(self) -> Resume | None:
        """Return the point from which the engine continues; ``None`` for a request that nobody has started."""
        if self._first is None:
            return None
        return Resume(
            ids=list(self.ids),
            characters={
                "reasoning": len(self.reasoning),
                "content": len(self.text),
                "tool_call": self._calls.characters,
            },
            calls=len(self._calls),
            revision=self._first.revision,
            prompt_hash=self._first.prompt_hash,
            rendering=self._first.rendering,
        )

    def note(self, entry: Entry) -> Append:
        """Return the entry as the journal's next item, and remember it."""
        last = self.items[-1]
        n = last.n + 1 if last.attempt == self.number else 1
        item = Append.of(self.task_id, n, entry, self.nonce)
        self.items.append(item)
        return item

    def take(self, event: Event) -> Entry:
        """Note an engine's event, and return the journal's entry for it."""
        match event:
            case Started():
                self.prompt_tokens, self.cached_tokens = event.prompt_tokens, event.cached_tokens
                self.warnings = list(event.warnings)
                return Start(
                    attempt=self.number,
                    model=self.model,
                    revision=event.revision,
                    prompt_tokens=event.prompt_tokens,
                    cached_tokens=event.cached_tokens,
                    prompt_hash=event.prompt_hash,
                    rendering=event.rendering if self._first is None else "",
                    warnings=self.warnings,
                )
            case Tokens():
                return self._take_tokens(event)
            case Finished():
                return self._finish(event)
            case Failed():
                return self.error(event.code, event.message)
            case Embedded():
                raise TypeError("vectors are no part of a text's answer")

    def _take_tokens(self, event: Tokens) -> Token:
        self.last_token_at = time.monotonic()
        if self.first_token_at is None:
            self.first_token_at = self.last_token_at
        logprobs = None
        if event.logprobs is not None:
            logprobs = [_openai_logprob(asdict(logprob)) for logprob in event.logprobs]
            self._logprobs.extend(logprobs)
        self.ids.extend(event.ids)
        self._parts.append((event.kind, event.text))
        if event.kind == "reasoning":
            self.reasoning_tokens += len(event.ids)
        named = event.call is not None and bool(event.name)
        token = Token(
            attempt=self.number,
            index=event.index,
            ids=event.ids,
            text=event.text,
            kind=event.kind,
            logprobs=logprobs,
            call=event.call,
            call_id=call_id(self.task_id, event.call) if event.call is not None and named else None,
            name=event.name if named else None,
        )
        self._note_call(token)
        return token

    def _note_call(self, token: Token) -> None:
        if token.call is not None:
            self._calls.add(delta(token.call, token.text, token.call_id, token.name))

    def _text_of(self, kind: str) -> str:
        return "".join(text for part, text in self._parts if part == kind)

    def _finish(self, event: Finished) -> Entry:
        if self.stop_reason == "requeue":
            return self.release(crashed=False)
        if self.stop_reason == "time_limit":
            return self.error("deadline_exceeded", f"the time limit of {self.limit_s:g} s passed")
        self.prompt_tokens, self.cached_tokens = event.prompt_tokens, event.cached_tokens
        return self.late() if event.finish_reason == "deadline" else self.end(event.finish_reason, event.warnings)

    def end(self, finish_reason: FinishReason, warnings: Sequence[str] = ()) -> End:
        """Return the entry that ends the request with the text so far."""
        return End(
            attempt=self.number,
            index=len(self.ids),
            finish_reason=finish_reason,
            usage=self.usage,
            timing=self.timing(),
            warnings=[*self.warnings, *warnings],
        )

    def late(self) -> End | Error:
        """Return the entry that ends the request because its time is over, with the text so far."""
        return self.end("deadline")

    def answer(self, end: End, worker: str, *, is_json: bool) -> Answer:
        """Return the request's result, as this worker stores it; if it ``is_json``, the parsed value is there, too."""
        more: dict[str, Any] = {"parsed": parsed(self.text, end.finish_reason)} if is_json else {}
        if end.warnings:
            more["warnings"] = end.warnings
        return Answer(
            text=self.text,
            reasoning=self.reasoning or None,
            tool_calls=self._calls.as_message() or None,
            finish_reason=end.finish_reason,
            usage=end.usage,
            timing=end.timing,
            logprobs=self.logprobs or None,
            model=self.model,
            worker=worker,
            attempt=end.attempt,
            **more,
        )

    def error(self, code: str, message: str) -> Error:
        """Return the entry that ends the request with an error."""
        return Error(attempt=self.number, code=code, message=message, retryable=error_for(code).retryable)

    def release(self, *, crashed: bool) -> Release:
        """Return the entry that ends this attempt, so that the next one continues."""
        return Release(attempt=self.number, crashed=crashed)

    def timing(self) -> dict[str, float | None]:
        """Milliseconds: in the queue (by Redis's clock), from claim to this attempt's first token, from claim to now."""
        first = None if self.first_token_at is None else round((self.first_token_at - self.claimed_at) * 1000, 3)
        total = round((time.monotonic() - self.claimed_at) * 1000, 3)
        queued = None if self.queued_ms is None else round(self.queued_ms, 3)
        return {"queued_ms": queued, "first_token_ms": first, "total_ms": total}

    def finish(self, outcome: Outcome) -> None:
        """Note that the journal has the outcome, and wake the thread that waits for it. The first outcome stands."""
        if self._outcome is None:
            self._outcome = outcome
            self._finished.set()

    def found(self, outcome: Outcome) -> None:
        """Note that the journal had this end before."""
        self.finish(outcome)

    def settle(self, entry: Entry) -> None:
        """Take the outcome from an entry that is not written, but would end the journal or the attempt."""
        if isinstance(entry, End | Error | Release):
            self.finish(entry)

    @property
    def outcome(self) -> Outcome | None:
        """The outcome, once the journal has it."""
        return self._outcome

    def wait(self) -> Outcome:
        """Wait until the journal has the outcome."""
        self._finished.wait()
        assert self._outcome is not None
        return self._outcome


def _openai_logprob(drawn: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's shape of one token's log-probability, with the token's id added."""
    return {
        "id": drawn["id"],
        "token": drawn["token"],
        "logprob": drawn["logprob"],
        "top_logprobs": [{"id": token, "token": text, "logprob": value} for token, text, value in drawn["top"]],
    }

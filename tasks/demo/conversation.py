"""One question of the demo, and its answer as it grows."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tasks.errors import GenerationError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.client.result import GenerateResult
    from tasks.generate import GenerateTask

State: TypeAlias = Literal["waiting", "running", "answered", "failed"]

#: The result is stored right after the stream's end.
RESULT_TIMEOUT_S = 10.0


@dataclass(slots=True)
class Conversation:
    """The progress of one question. Times are of this process's monotonic clock, in seconds."""

    question: str
    sent_at: float
    result: GenerateResult
    text: str = ""
    tokens: int = 0
    first_at: float | None = None
    ended_at: float | None = None
    error: str = ""
    answer: dict[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> State:
        """The state, in one word."""
        if self.ended_at is not None:
            return "failed" if self.error else "answered"
        return "waiting" if self.first_at is None else "running"

    @property
    def first_token_s(self) -> float | None:
        """From sending to the first token."""
        return None if self.first_at is None else self.first_at - self.sent_at

    @property
    def tokens_per_s(self) -> float | None:
        """The tokens per second after the first one; ``None`` before there are two."""
        if self.first_at is None or self.tokens < 2:
            return None
        elapsed_s = (self.ended_at or time.monotonic()) - self.first_at
        return (self.tokens - 1) / elapsed_s if elapsed_s > 0 else None

    def follow(self) -> None:
        """Read the answer's stream to its end."""
        try:
            for chunk in self.result.stream():
                self.tokens += len(chunk.ids)
                if chunk.kind == "content":
                    self.text += chunk.text
                if self.first_at is None:
                    self.first_at = time.monotonic()
        except GenerationError as error:
            self.error = str(error)
        finally:
            self.ended_at = time.monotonic()

    def collect(self) -> None:
        """Fetch the stored result of an answer that is complete."""
        if self.error:
            return
        stored = self.result.get(timeout=RESULT_TIMEOUT_S, propagate=False)
        if isinstance(stored, dict):
            self.answer = stored
        else:
            self.error = f"{type(stored).__name__}: {stored}"

    def release(self) -> None:
        """Unsubscribe from the result while Redis is there; at exit Celery would try to for 20 s without it."""
        self.result.backend.remove_pending_result(self.result)


def ask(generate: GenerateTask, questions: Sequence[str], **parameters: Any) -> list[Conversation]:
    """Send all questions at once, each as a chat of its own, and follow each answer in a thread."""
    conversations = []
    for question in questions:
        sent_at = time.monotonic()
        result = generate.delay(messages=[{"role": "user", "content": question}], **parameters)
        conversations.append(Conversation(question, sent_at, result))
    for conversation in conversations:
        # Daemons, so that Ctrl-C does not wait for answers.
        threading.Thread(target=conversation.follow, daemon=True).start()
    return conversations


def finished(conversations: Sequence[Conversation]) -> bool:
    """Whether every answer is complete or has failed."""
    return all(conversation.ended_at is not None for conversation in conversations)


def total_tokens_per_s(conversations: Sequence[Conversation]) -> float:
    """All tokens of all answers over the time from the first question to the end of the last answer."""
    ends = [conversation.ended_at or time.monotonic() for conversation in conversations]
    elapsed_s = max(ends) - min(conversation.sent_at for conversation in conversations)
    return sum(conversation.tokens for conversation in conversations) / elapsed_s if elapsed_s > 0 else 0.0

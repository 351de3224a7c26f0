"""The errors that a caller may want to tell apart, each with its code on the wire.

Celery stores an error as its class and arguments, and makes it again in the producer. So each class takes one message.
"""

from __future__ import annotations

import os
import re
import sys
from contextlib import suppress
from typing import ClassVar, NoReturn


class GenerationError(Exception):
    """A request ended without its text. The journal's ``error`` entry has the ``code``."""

    code: ClassVar[str] = "internal_error"
    #: Whether the same request, sent again, may succeed.
    retryable: ClassVar[bool] = False
    #: The status of an HTTP answer that stands for this error; 499 is nginx's for a client that has gone.
    http_status: ClassVar[int] = 500


class InvalidRequest(GenerationError, ValueError):
    """A field of the request is unknown, missing or out of bounds; the message names it."""

    code = "invalid_request"
    http_status = 400


class ContextExceeded(InvalidRequest):
    """Prompt and ``max_tokens`` together do not fit the model's context."""

    code = "context_length_exceeded"


class UnknownModel(InvalidRequest):
    """The model is neither in the catalogue nor allowed by one of its patterns."""

    code = "model_not_found"
    http_status = 404


class ModelLoadFailed(GenerationError):
    """The model's files are missing, incomplete or unreadable on the worker that was to load it."""

    code = "model_load_failed"


class OutOfMemory(GenerationError):
    """The request can never fit into the memory of the machine that serves it."""

    code = "out_of_memory"


class CannotResume(GenerationError):
    """The worker that died and the one that took over hold different revisions of the model or of the prompt."""

    code = "cannot_resume"


class EngineFailed(GenerationError):
    """The engine died or stopped making steps, more often than a request is tried again."""

    code = "engine_failed"
    retryable = True


class DeadlineExceeded(GenerationError):
    """A time limit passed before the request could be answered."""

    code = "deadline_exceeded"
    http_status = 504


class Expired(GenerationError):
    """The request waited in its queue for longer than its ``expires``."""

    code = "expired"
    http_status = 504


class NoWorker(GenerationError):
    """No live worker serves the request's tier, and the request asked for one."""

    code = "no_worker"
    http_status = 503
    retryable = True


class QueueFull(GenerationError):
    """The tier's queue takes no more requests, because too many wait: try again after ``retry_after_s`` seconds.

    ``depth`` and ``bound`` count requests; ``retry_after_s`` is ``None`` where nothing was served recently.
    """

    code = "queue_full"
    http_status = 429
    retryable = True

    def __init__(self, message: str = "", depth: int = 0, bound: int = 0, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.depth = depth
        self.bound = bound
        self.retry_after_s = retry_after_s


class BrokerUnavailable(GenerationError):
    """Redis cannot be reached, or refuses this client.

    ``entry`` is the heading in docs/troubleshooting.md that helps; empty where there is none.
    """

    code = "broker_unavailable"
    http_status = 503
    retryable = True
    #: The exit status of a command that cannot start because of this error.
    exit_status: ClassVar[int] = os.EX_UNAVAILABLE

    def __init__(self, message: str = "", entry: str = "") -> None:
        super().__init__(message)
        self.entry = entry


class BrokerMisconfigured(BrokerUnavailable):
    """``REDIS_URL``, its server, or an option or a task of the application does not suit this project; a retry would not help."""

    code = "broker_misconfigured"
    http_status = 500
    retryable = False
    exit_status = os.EX_CONFIG


class JournalFailed(GenerationError):
    """Redis answered a write to a journal with an error that does not pass."""

    code = "journal_failed"


class AnswerChanged(GenerationError):
    """Redis lost a part of the request, and it was computed again with another text than a reader had already been given.

    A new ``stream()`` gives the whole of the new text.
    """

    code = "answer_changed"


class Cancelled(GenerationError):
    """The request was cancelled; what had been generated is in its journal."""

    code = "cancelled"
    http_status = 499


class StreamTimeout(GenerationError, TimeoutError):
    """A reader's timeout passed; the request itself continues."""

    code = "stream_timeout"
    http_status = 504


class UnknownRequest(GenerationError):
    """Nobody knows a request of this id: it was never sent, or all of it has expired."""

    code = "unknown_request"
    http_status = 404


def pointer(entry: str) -> str:
    """Return a pointer to an entry of docs/troubleshooting.md, for the end of a line that refuses a start; empty without one."""
    anchor = "-".join(re.findall(r"\w+", entry.lower()))
    return f" (docs/troubleshooting.md#{anchor})" if anchor else ""


def refuse(status: int, message: str, entry: str) -> NoReturn:
    """End a command before it has begun, with one line.

    It raises ``SystemExit``, because Celery swallows other exceptions of signal handlers, and prints a traceback for those that
    are raised while it loads an application.
    """
    # A closed standard error must not keep it from ending with this status. What is printed and cannot be written stays in the
    # stream's buffer, and the interpreter ends with 120 for it.
    with suppress(OSError, ValueError):
        if sys.__stderr__ is not None:
            os.write(sys.__stderr__.fileno(), f"celery-mlx: {message}{pointer(entry)}\n".encode(errors="replace"))
    raise SystemExit(status)


def by_code(base: type[GenerationError]) -> dict[str, type[GenerationError]]:
    """Return a class and its subclasses by their codes on the wire."""
    found = {base.code: base}
    for error in base.__subclasses__():
        # A subclass without a code of its own is no other error on the wire.
        found.update({code: kind for code, kind in by_code(error).items() if code not in found})
    return found


def error_for(code: str) -> type[GenerationError]:
    """Return the class of this wire code; :class:`GenerationError` for codes of newer versions."""
    return by_code(GenerationError).get(code, GenerationError)

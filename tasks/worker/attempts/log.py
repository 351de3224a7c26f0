"""The line that the log gets about a request: ending it, or an attempt at it, ended."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from tasks.errors import GenerationError, InvalidRequest, error_for
from tasks.messages.journal import End, Error, Release

if TYPE_CHECKING:
    from tasks.worker.attempts.attempt import Attempt, Outcome

logger = logging.getLogger("tasks.requests")

#: Counts that are nearly always zero, and left out of a line for people then.
RARE = frozenset({"cached_tokens", "reasoning_tokens"})


def ended(attempt: Attempt, outcome: Outcome) -> None:
    """Log how an attempt at a request ended."""
    fields: dict[str, Any] = {"model": attempt.model, "attempt": attempt.number}
    usage = {
        "prompt_tokens": attempt.prompt_tokens,
        "cached_tokens": attempt.cached_tokens,
        "completion_tokens": len(attempt.ids),
        "reasoning_tokens": attempt.reasoning_tokens,
    }
    if isinstance(outcome, End):
        ending = "cancelled" if outcome.finish_reason == "cancelled" else "succeeded"
        log(attempt.task_id, ending, **fields, finish_reason=outcome.finish_reason, **usage, **outcome.timing)
    elif isinstance(outcome, Error):
        log(attempt.task_id, "failed", **fields, code=outcome.code, error=outcome.message, **usage, **attempt.timing())
    else:
        ending = "crashed" if isinstance(outcome, Release) and outcome.crashed else "released"
        log(attempt.task_id, ending, **fields, **usage, **attempt.timing())


def refused(task_id: str, error: GenerationError) -> None:
    """Log a request that cannot be run."""
    log(task_id, "failed", code=error.code, error=str(error))


def log(task_id: str, outcome: str, **fields: Any) -> None:
    """Log one line about a request: at WARNING if it failed and its producer could not have known, else at INFO."""
    kind = error_for(str(fields["code"])) if "code" in fields else GenerationError
    if kind is InvalidRequest:
        # Its message quotes what the producer sent, which may be a part of a prompt.
        fields.pop("error", None)
    level = logging.WARNING if outcome == "failed" and not issubclass(kind, InvalidRequest) else logging.INFO
    if not logger.isEnabledFor(level):
        return
    known = {name: value for name, value in fields.items() if value is not None}
    text = " ".join(f"{name}={_shown(value)}" for name, value in known.items() if value != 0 or name not in RARE)
    logger.log(
        level,
        "request %s %s: %s",
        task_id,
        outcome,
        text,
        extra={"fields": {"task_id": task_id, "outcome": outcome, **known}},
    )


def _shown(value: Any) -> str:
    """A value for people: milliseconds without thousandths, texts with spaces in quotes."""
    if isinstance(value, float):
        return f"{value:.0f}" if value >= 10 else f"{value:.1f}"
    return repr(value) if " " in str(value) else str(value)

"""Accounts of the requests that a worker runs: its metrics, its log, and measurements for the requests that follow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.errors import InvalidRequest, error_for
from tasks.messages.journal import End, Error
from tasks.worker.attempts import log

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.broker.message.prefix import Prefix
    from tasks.errors import GenerationError
    from tasks.metrics.collector import MetricsCollector
    from tasks.metrics.collector import Outcome as MetricOutcome
    from tasks.worker.attempts.attempt import Attempt, Outcome
    from tasks.worker.attempts.delivery import Delivery
    from tasks.worker.attempts.first_tokens import FirstTokens
    from tasks.worker.attempts.warmth import Warmth


@dataclass(frozen=True, slots=True)
class Accounts:
    """Every thread may call it.

    Args:
        metrics: counts and times, for the worker's record.
        first_tokens: how soon first tokens came.
        warmth: the prompts that are warm, and the cost of a prefill.
    """

    metrics: MetricsCollector
    first_tokens: FirstTokens
    warmth: Warmth

    def started(self, delivery: Delivery, attempt: Attempt) -> None:
        """Note that an attempt begins."""
        self.metrics.started(
            delivery.task_id,
            attempt.model,
            attempt.queued_ms,
            resumed=bool(attempt.ids),
            queue=delivery.job.queue,
        )

    def computed(self, attempt: Attempt, prefixes: Sequence[Prefix]) -> None:
        """Note that an engine has computed an attempt at a prompt with these beginnings."""
        if attempt.first_token_at is not None:
            self.first_tokens.note(attempt.model, attempt.first_token_at - attempt.claimed_at)
            self.warmth.computed(attempt, prefixes)

    def ended(self, attempt: Attempt, outcome: Outcome) -> None:
        """Note the outcome of an attempt that was started."""
        self.metrics.ended(
            attempt.task_id,
            _metric(outcome),
            prompt_tokens=attempt.prompt_tokens,
            cached_tokens=attempt.cached_tokens,
        )
        if isinstance(outcome, Error):
            self._note_failure(attempt.task_id, attempt.model, outcome.code, outcome.message)
        log.ended(attempt, outcome)

    def refused(self, delivery: Delivery, error: GenerationError) -> None:
        """Note that a request cannot be run."""
        self.metrics.started(delivery.task_id, "(refused)", queue=delivery.job.queue)
        self.metrics.ended(delivery.task_id, "failed")
        self._note_failure(delivery.task_id, "", error.code, str(error))
        log.refused(delivery.task_id, error)

    def _note_failure(self, task_id: str, model: str, code: str, message: str) -> None:
        # The message of a wrong request quotes it, which may show a part of a prompt.
        reason = "" if issubclass(error_for(code), InvalidRequest) else message
        self.metrics.failures.note(task_id, model, code, reason)


def _metric(outcome: Outcome) -> MetricOutcome:
    """The name that metrics have for an outcome."""
    if isinstance(outcome, Error):
        return "failed"
    if not isinstance(outcome, End):
        return "released"
    return "cancelled" if outcome.finish_reason == "cancelled" else "succeeded"

"""Celery's request of a generation: its redacted text for monitors, and the order of its end.

Celery stores a revoke's or a time limit's result, and acknowledges, at the moment that it asks the task to stop. Here the
task is asked to stop, and the rest follows when its journal has ended: journal, result, acknowledgement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.utils.log import get_logger
from celery.worker import state as celery_state
from celery.worker.request import Request

from tasks.client.sending.redaction import redact
from tasks.messages.journal import End, Error
from tasks.worker.attempts.job import Stopped
from tasks.worker.current import active_worker
from tasks.worker.unstarted import end_unstarted, forget_unclaimed
from worker_config.celeryconfig import settings_of

if TYPE_CHECKING:
    from celery.concurrency.base import BasePool

logger = get_logger(__name__)


class GenerateRequest(Request):
    """One delivery of ``tasks.generate``."""

    acknowledged: bool = False
    _stop_signal: Any = None

    def __init__(self, message: Any, *args: Any, **options: Any) -> None:
        # It was decoded to be checked. Celery would have the task's thread decode it once more.
        super().__init__(message, *args, **{**options, "body": message.payload, "decoded": True})

    @property
    def _shows_prompts(self) -> bool:
        worker = active_worker()
        settings = worker.profile.settings if worker is not None else settings_of(self.app)
        return settings.show_prompts

    @property
    def argsrepr(self) -> str:
        """Redacted here too: a producer in another process or language may not have done it."""
        return str(self._argsrepr) if self._shows_prompts else "()"

    @property
    def kwargsrepr(self) -> str:
        """Model and lengths instead of prompts, unless the settings say so."""
        return str(self._kwargsrepr) if self._shows_prompts else redact(self._kwargs)

    def info(self, safe: bool = False) -> dict[str, Any]:
        """Return the description for ``inspect`` and Flower, with the redacted arguments."""
        described: dict[str, Any] = super().info(safe=safe)
        if not self._shows_prompts:
            described |= {"args": self.argsrepr, "kwargs": self.kwargsrepr}
        return described

    @property
    def has_ended(self) -> bool:
        """Whether its journal has an end, or is about to: its readers may have been told. What is left to do is Celery's."""
        job = self._apply_result() if self._apply_result is not None else None
        attempt = job.attempt if job is not None else None
        return attempt is not None and (attempt.is_ending or isinstance(attempt.outcome, End | Error))

    def maybe_expire(self) -> bool:
        """Whether it has expired. ``expires`` is the producer's; this machine's clock may be far from that."""
        worker = active_worker()
        if worker is None or self.expires is None:
            return bool(super().maybe_expire())
        if worker.links.clock.now() <= self.expires.timestamp():
            return False
        celery_state.revoked.add(self.id)
        return True

    def acknowledge(self) -> None:
        """Celery's, by a turn of its loop; nothing is left for that where the message was forgotten as the result was stored."""
        message = self.message
        if not self.acknowledged and message.delivery_tag in message.channel.holding.answered:
            message.ack_log_error(logger, self._connection_errors)
            self.acknowledged = True
        else:
            super().acknowledge()

    def terminate(self, pool: BasePool, signal: int | None = None) -> None:
        """Cancel: a running request is asked to stop, one that waits for its thread never starts."""
        job = self._apply_result() if self._apply_result is not None else None
        if job is None:
            super().terminate(pool, signal)
            return
        self._stop_signal = signal
        job.terminate(signal)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Only log: the task's body ends with the partial text (soft) or with ``TimeLimitExceeded`` (hard)."""
        logger.warning(
            "%s time limit (%ss) exceeded for %s[%s]", "Soft" if soft else "Hard", timeout, self.name, self.id
        )

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        """The end of a request that did not succeed; a cancelled one is announced as revoked now."""
        # billiard wraps the exception, to carry its traceback as text.
        if isinstance(getattr(exc_info.exception, "exc", exc_info.exception), Stopped):
            self._announce_revoked("terminated", True, self._stop_signal, False)
            return None
        return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        """Revoked or expired while it waited: the task's body never runs, so the journal is ended from here."""
        if not terminated and not end_unstarted(self.id, expired=expired):
            self._drop()
            return
        super()._announce_revoked(reason, terminated, signum, expired)
        if not terminated:
            forget_unclaimed(self.id)

    def _drop(self) -> None:
        """Drop a second delivery of a request that runs or has run: the first one stores the result."""
        self._already_revoked = True
        celery_state.task_ready(self)
        worker = active_worker()
        if worker is None or self.id not in worker.in_engine:  # both deliveries have one tag
            self.acknowledge()

"""A job: one request in the pool, and the one way to stop it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from celery.exceptions import Ignore

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.journal.items import Held
    from tasks.worker.attempts.attempt import Attempt

#: Why a job is to stop: its producer cancelled it, its soft or hard time limit passed, or the worker gives it back.
StopReason: TypeAlias = Literal["cancelled", "soft_time_limit", "time_limit", "requeue"]

#: Requests of this priority are batch work.
BATCH = 9

_current = threading.local()


class Stopped(Ignore):
    """Raised by the task's body when a cancel has ended it: nothing is stored by the tracer, REVOKED is by the request."""


class Job:
    """A running request, as Celery's request, the time limits and the drain hold it.

    Args:
        task_id: the request's id.
        queue: the queue that it came from.
        requeues: whether Celery, at the time of :meth:`terminate`, wants the request back in its queue.
        held: says which message this worker holds of it.
        priority: Celery's; 0 is the most urgent.
    """

    def __init__(
        self,
        task_id: str,
        queue: str,
        requeues: Callable[[], bool] = lambda: False,
        held: Callable[[], Held | None] = lambda: None,
        priority: int = 0,
    ) -> None:
        self.task_id = task_id
        self.queue = queue
        self.priority = priority
        self.held = held
        #: Its last attempt, once it has claimed the request.
        self.attempt: Attempt | None = None
        self.reason: StopReason | None = None
        self.limit_s: float | None = None
        self.result: Any = None
        self._requeues = requeues
        self._lock = threading.Lock()
        self._on_stop: Callable[[StopReason], None] | None = None

    @property
    def is_batch_work(self) -> bool:
        """Whether urgent requests go before it."""
        return self.priority >= BATCH

    def terminate(self, signal: int | str | None = None) -> None:
        """Stop the job for Celery, which calls this for a revoke and for a cold shutdown; its notes on the request differ."""
        self.stop("requeue" if self._requeues() else "cancelled")

    def stop(self, reason: StopReason) -> None:
        """Ask the job to stop; the first reason stands, but a hard limit or a cancel overrules a soft limit."""
        with self._lock:
            if self.reason is not None and not (self.reason == "soft_time_limit" and reason != "soft_time_limit"):
                return
            self.reason = reason
            callback = self._on_stop
        if callback is not None:
            callback(reason)

    def on_stop(self, callback: Callable[[StopReason], None] | None) -> None:
        """Have this called, on another thread, when the job is to stop; at once if it already is."""
        with self._lock:
            self._on_stop = callback
            reason = self.reason
        if reason is not None and callback is not None:
            callback(reason)


def current_job() -> Job | None:
    """The job that this thread of the pool runs."""
    return getattr(_current, "job", None)


def set_current_job(job: Job | None) -> None:
    """Say which job this thread of the pool runs."""
    _current.job = job

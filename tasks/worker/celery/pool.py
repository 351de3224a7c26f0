"""The pool: threads that wait while an engine works, and that can be told to stop.

``celery.concurrency.thread`` cannot terminate a task (``NotImplementedError``), ignores time limits without a word (celery
#9203) and turns SIGQUIT into a warm shutdown that never ends (celery #10490). prefork would load the model once for each
child, and its children could not share a batch.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from celery.concurrency.base import apply_target
from celery.concurrency.thread import ApplyResult
from celery.concurrency.thread import TaskPool as ThreadPool
from celery.worker.state import task_ready
from kombu.asynchronous import get_event_loop

from tasks.worker.attempts.job import Job, set_current_job
from tasks.worker.attempts.recovery import held_message
from tasks.worker.celery.time_limits import TimeLimits
from tasks.worker.current import active_worker
from tasks.worker.queues.room import Room
from worker_config.celeryconfig import settings_of

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)

#: The obstacle may pass meanwhile: memory that is lacking, a Redis that is full.
REQUEUE_AFTER_S = 0.5


class EnginePool(ThreadPool):
    """One thread for each running request; the batch itself is the engine's."""

    signal_safe = False
    _does_debug: bool = True

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._worker = active_worker()
        self.room = self._worker.room if self._worker is not None else Room({}, self.limit)
        self.executor = ThreadPoolExecutor(self.limit + self.room.most_urgent)
        self._jobs: set[Job] = set()
        self._time_limits = TimeLimits(_call_later)

    def on_start(self) -> None:
        """At its debug level Celery's pool would write a task's whole message into the log."""
        self._does_debug = self._does_debug and settings_of(self.app).show_prompts

    def on_apply(
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        callback: Callable[..., Any] | None = None,
        accept_callback: Callable[..., Any] | None = None,
        correlation_id: str = "",
        soft_timeout: float | None = None,
        timeout: float | None = None,
        timeout_callback: Callable[..., Any] | None = None,
        **_: Any,
    ) -> Job:
        """Start a request, and return an object that can terminate it. On the consumer's thread."""
        request = getattr(callback, "__self__", None)
        job = Job(
            correlation_id,
            queue_of(request),
            requeues=lambda: bool(getattr(request, "_already_cancelled", False)),
            held=lambda: held_message(getattr(request, "message", None)),
            priority=priority_of(request),
        )
        self._time_limits.add(job, soft_timeout, timeout, timeout_callback)
        self._jobs.add(job)
        self.room.enter(job.queue, is_batch_work=job.is_batch_work)
        try:
            future = self.executor.submit(
                _run, job, partial(apply_target, target, args, kwargs, callback, accept_callback)
            )
        except BaseException:
            self._let_go(job)
            raise
        job.result = ApplyResult(future)
        future.add_done_callback(partial(self._done, request, job))
        return job

    def _done(self, request: Any, job: Job, future: Any) -> None:
        try:
            if not future.cancelled() and (error := future.exception()) is not None:
                _requeue(request, job.task_id, error)
        finally:
            self._let_go(job)

    def _let_go(self, job: Job) -> None:
        self._time_limits.remove(job)
        self._jobs.discard(job)
        if self._worker is not None:
            self._worker.links.recovery.remember(job)
        self.room.leave(job.queue, is_batch_work=job.is_batch_work)

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """Nothing: Celery calls this with the process, then :meth:`Job.terminate` of the very request."""

    def requeue_all(self) -> None:
        """Stop every running request, and requeue it."""
        for job in list(self._jobs):
            job.stop("requeue")

    def restore_orphans(self, channel: Any) -> None:
        """Give back messages that this worker holds and does not run, and note again in Redis those that it runs.

        Celery forgets what had not reached its handler with the connection, and nobody else may restore from this worker's
        keys. On the consumer's thread, before anything was fetched on the new connection.
        """
        if self._worker is not None:
            self._worker.links.recovery.reconnect(channel, list(self._jobs))

    def on_stop(self) -> None:
        """Wait for the threads while the loop's timers and callbacks, and with them the heartbeat, go on."""
        self.executor.shutdown(wait=False, cancel_futures=True)
        while not self.room.wait_idle(0.05):
            _turn(get_event_loop())

    def on_terminate(self) -> None:
        """Requeue all running requests, and wait for that."""
        self.requeue_all()
        self.on_stop()


def _run(job: Job, call: Callable[[], Any]) -> None:
    """Run a request's body as this job's. On a thread of the pool."""
    set_current_job(job)
    try:
        call()
    finally:
        set_current_job(None)


def _requeue(request: Any, task_id: str, error: BaseException) -> None:
    """Give back a request that Celery has not ended: out of memory, or its result could not be stored.

    Celery neither acknowledges nor rejects it then. This worker would hold it for as long as it lives.
    """
    logger.error("request %s is given back, since Celery could not end it", task_id, exc_info=error)
    if request is not None:
        time.sleep(REQUEUE_AFTER_S)
        task_ready(request)
        request.reject(requeue=True)


def _call_later(after_s: float, call: Callable[[], None]) -> None:
    """Have the worker's loop call this; without a loop nothing has a time limit."""
    hub = get_event_loop()
    if hub is not None:
        hub.call_later(after_s, call)


def _turn(hub: Any) -> None:
    """One turn of the hub's timers and callbacks, which nobody else runs once the consumer has stopped."""
    if hub is None:
        return
    hub.fire_timers()
    for callback in hub._pop_ready():
        with suppress(Exception):
            callback()


def queue_of(request: Any) -> str:
    """The queue that a Celery request came from; empty where it is not known."""
    info = getattr(request, "delivery_info", None) or {}
    return str(info.get("routing_key") or "")


def priority_of(request: Any) -> int:
    """The priority of a Celery request; the most urgent where it is not known."""
    info = getattr(request, "delivery_info", None) or {}
    priority = info.get("priority")
    return priority if isinstance(priority, int) else 0

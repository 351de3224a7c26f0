"""The worker of this process. This module imports nothing of the worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.worker.worker import InferenceWorker

_worker: InferenceWorker | None = None


def current_worker() -> InferenceWorker:
    """The worker of this process; only where there is one."""
    assert _worker is not None, "no worker of celery-mlx runs in this process"
    return _worker


def active_worker() -> InferenceWorker | None:
    """The worker of this process, if it is one."""
    return _worker


def set_worker(worker: InferenceWorker | None) -> None:
    """Make this the worker of this process; for the signals that begin and end it."""
    global _worker  # noqa: PLW0603  (one worker for each process, made by a signal)
    _worker = worker

"""Gives a Celery process that includes a task of this project its role: a worker, or beat with the sweep.

A producer includes the tasks, too. It does not pay for the worker's code, which is imported when a process becomes a worker.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from celery import signals

from tasks.errors import InvalidRequest

if TYPE_CHECKING:
    from celery import Task


def run_body(task: Task, previous: Any, values: dict[str, Any]) -> Any:
    """Run a task's body on this worker or, for an eager call, on an engine of this process.

    Raises:
        InvalidRequest: nobody sent the request: ``generate.run(...)`` is a call of the task, too.
    """
    if task.request.called_directly:
        raise InvalidRequest(task.instead_of_call)
    module = ".worker.eager" if task.request.is_eager else ".worker.celery.body"
    return import_module(module, __package__).run(task, previous, values)


@signals.celeryd_init.connect
def _become_worker(instance: Any, **_: Any) -> None:
    """Prepare this project's side of a worker that starts in this process."""
    import_module(".worker.celery.lifecycle", __package__).prepare(instance.app)


@signals.beat_init.connect
def _begin_sweep(sender: Any, **_: Any) -> None:
    """Start the sweep in beat's process."""
    import_module(".sweep", __package__).start_sweep(sender.app)

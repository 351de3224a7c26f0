"""Makes a process of Celery's that includes a task of this project a worker, or the home of the sweep.

A producer includes the tasks, too, and never pays for the worker: it is imported here alone, when a process becomes one.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from celery import signals

if TYPE_CHECKING:
    from celery import Task


def run_body(task: Task, previous: Any, values: dict[str, Any]) -> Any:
    """Run a task's body: on the worker that this process is, or, for an eager call, on an engine of this process."""
    module = ".worker.eager" if task.request.is_eager else ".worker.celery.body"
    return import_module(module, __package__).run(task, previous, values)


@signals.celeryd_init.connect
def _become_worker(instance: Any, **_: Any) -> None:
    """A worker that includes this module starts in this process: connect its side of it."""
    import_module(".worker.celery.lifecycle", __package__).prepare(instance.app)


@signals.beat_init.connect
def _begin_sweep(sender: Any, **_: Any) -> None:
    """Beat starts in this process: the sweep runs beside it."""
    import_module(".sweep", __package__).start_sweep(sender.app)

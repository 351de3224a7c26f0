"""Gives a Celery process that includes a task of this project its role: a worker, or beat with the sweep.

A producer includes the tasks, too. It does not pay for the worker's code, which is imported when a process becomes a worker.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from celery import shared_task, signals
from celery.local import Proxy

from tasks.errors import InvalidRequest
from tasks.names import require_own

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Task


def declared(run: Callable[..., Any], name: str, base: type[Task]) -> Any:
    """The current application's task of this name, with this body.

    Raises:
        BrokerMisconfigured: at each use, where that application has a task of its own of this name.
    """
    return Proxy(partial(_own, shared_task(run, name=name, base=base, bind=True)), (name,))


def _own(task: Any, name: str) -> Any:
    found = task._get_current_object()
    require_own(found.app, name)
    return found


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

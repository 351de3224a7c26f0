"""Where the tasks go that follow a request: a chain's next links, a chord's body, callbacks and errbacks.

Celery routes a follower where the task before it ends. That is a worker of the fleet, whose application knows neither an
application's other tasks nor their routes: the follower would wait in the fleet's default queue, where nobody takes it.
So the producer, whose application does know them, names their queues.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.canvas import Signature

from tasks.errors import InvalidRequest
from tasks.names import is_ours

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from celery import Celery

#: Options by which somebody has said where a task goes.
_DESTINATIONS = ("queue", "exchange", "routing_key")
#: Options and arguments of a signature that hold others.
_OPTIONS = ("link", "link_error", "chain", "chord")
_ARGUMENTS = ("tasks", "header", "body")


def name_queues(app: Celery, options: Mapping[str, Any], *more: Any) -> None:
    """Write into the signatures that follow a request the queue that their own application routes them to.

    Those that name a destination, and those of tasks that this process does not know, stay as they are: a worker of the fleet
    may have the application that knows them.

    Args:
        app: the application of a task whose signature names none.
        options: those of ``apply_async``.
        more: its ``link`` and ``link_error``.
    """
    for signature in _signatures([*more, *(options.get(name) for name in _OPTIONS)]):
        _name_queue(app, signature)


def require_signatures(**given: Any) -> None:
    """Check what was given as ``link`` or ``link_error``.

    Raises:
        InvalidRequest: it is a task, or something else that is no signature; Celery would say that it is no JSON.
    """
    for name, value in given.items():
        for follower in value if isinstance(value, list | tuple) else [value]:
            if follower is None or (isinstance(follower, dict) and follower.get("task")):
                continue
            shown = getattr(follower, "name", None) or type(follower).__name__
            hint = (
                f"use {shown}.s(...)"
                if hasattr(follower, "apply_async")
                else "give a signature, as task.s(...) makes one"
            )
            raise InvalidRequest(f"{name}: {shown} is no signature: {hint}")


def _name_queue(app: Celery, signature: dict[str, Any]) -> None:
    options = signature.setdefault("options", {})
    name_queues(app, options)
    if signature.get("subtask_type") in ("group", "chain", "chord"):
        for inner in _signatures([(signature.get("kwargs") or {}).get(name) for name in _ARGUMENTS]):
            _name_queue(app, inner)
        return
    name = signature["task"]
    task = getattr(signature, "_type", None) or app.tasks.get(name)
    if task is None or is_ours(name) or any(options.get(option) for option in _DESTINATIONS):
        return
    given = {key: value for key, value in task._get_exec_options().items() if value is not None}
    route = task.app.amqp.router.route(
        {**given, **options}, name, signature.get("args"), signature.get("kwargs"), task_type=task
    )
    options["queue"] = route["queue"].name


def _signatures(values: Iterable[Any]) -> Iterable[dict[str, Any]]:
    """The signatures in these values, each of which is one, several, or none."""
    for value in values:
        if isinstance(value, Signature | dict):
            yield value
        elif isinstance(value, list | tuple):
            yield from _signatures(value)

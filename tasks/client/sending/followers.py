"""Routes the tasks that follow a request: a chain's next links, a chord's body, callbacks and errbacks.

Celery routes a follower where the task before it ends. That is a worker of the fleet, whose application knows neither an
application's other tasks nor their routes: the follower would wait in the fleet's default queue, where nobody takes it.
So the producer, whose application does know them, names their queues. It also names the model of requests among them that name
none: a worker may have another default.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.app.amqp import _callback_publish_retry
from celery.canvas import Signature

from tasks.client.sending.request import with_model
from tasks.errors import InvalidRequest
from tasks.names import is_ours
from worker_config.celeryconfig import settings_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from celery import Celery

#: Options that name the destination of a task.
_DESTINATIONS = ("queue", "exchange", "routing_key")
#: Options and arguments of a signature that hold others.
_OPTIONS = ("link", "link_error", "chain", "chord")
_ARGUMENTS = ("tasks", "header", "body")


def follows(before: Any, options: Mapping[str, Any]) -> bool:
    """Whether Celery sends this after a task, from a worker: a chain's next link, a callback, a chord's body.

    It was accepted with what it follows, so no bound applies; and a worker of its own says what is wrong with it, on its
    stream: raised here, that would fail the task before it, which has been done. A request that a task makes is like any
    other.

    Args:
        before: the task that sends it, if one does.
        options: those of ``apply_async``.
    """
    if before is None:
        return False
    is_callback = options.get("parent_id") is not None and options["parent_id"] == before.request.id
    return bool(is_ours(before.name) or is_callback or _callback_publish_retry.get())


def name_destinations(app: Celery, options: Mapping[str, Any], *more: Any) -> None:
    """Write into the signatures that follow a request the queue that their own application routes them to; or their model.

    Those that name a destination, and those of tasks that this process does not know, stay as they are: a worker of the fleet
    may have the application that knows them.

    Args:
        app: the application of a task whose signature names none.
        options: those of ``apply_async``.
        more: its ``link`` and ``link_error``.
    """
    followers = [value for value in (*more, *(options.get(name) for name in _OPTIONS)) if value]
    for signature in _signatures(followers):
        _name_destination(app, signature)


def require_signatures(**given: Any) -> None:
    """Check what was given as ``link`` or ``link_error``.

    Raises:
        InvalidRequest: it is a task, or something else that is not a signature; Celery would say that it is not JSON.
    """
    for name, value in given.items():
        for follower in value if isinstance(value, list | tuple) else [value]:
            if follower is None or (isinstance(follower, dict) and follower.get("task")):
                continue
            # A result looks its name up in Redis.
            name_of_task = follower.name if hasattr(follower, "apply_async") else None
            shown = name_of_task or type(follower).__name__
            hint = f"use {shown}.s(...)" if name_of_task else "give a signature, as task.s(...) makes one"
            raise InvalidRequest(f"{name}: {shown} is not a signature: {hint}")


def _name_destination(app: Celery, signature: dict[str, Any]) -> None:
    options = signature.setdefault("options", {})
    name_destinations(app, options)
    if signature.get("subtask_type") in ("group", "chain", "chord"):
        for inner in _signatures([(signature.get("kwargs") or {}).get(name) for name in _ARGUMENTS]):
            _name_destination(app, inner)
        return
    name = signature["task"]
    task = getattr(signature, "_type", None) or app.tasks.get(name)
    if is_ours(name):
        values = signature.get("kwargs") or {}
        if isinstance(values, dict):  # else the worker says what is wrong
            signature["kwargs"] = with_model(values, settings_of(app))
        return
    if task is None or any(options.get(option) for option in _DESTINATIONS):
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

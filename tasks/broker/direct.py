"""Sends a request without Celery's ``send_task`` and kombu's producer, which are half of the cost of ``delay``.

The message is the same. Whatever needs more than Celery's headers goes Celery's way: options that are not in :data:`HANDLED`, a
request that a task sends, events, receivers of Celery's signals about publishing, programs that have replaced ``apply_async`` or
``send_task`` to trace them, and other transports, result backends and serializers than this project's.
"""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from celery import Celery, Task, signals
from celery.utils import uuid
from kombu.utils.functional import maybe_evaluate, maybe_list

from tasks.broker.results import Backend
from tasks.broker.submission.declared import Declared
from tasks.broker.submission.put import queue_one
from tasks.broker.submission.sending import send_twice
from tasks.broker.submission.sent import SENT
from tasks.broker.submission.submission import Built, Collector, put_of
from tasks.broker.transport import Transport
from tasks.models.routing import route_task
from tasks.server.connection import connect
from worker_config.celeryconfig import settings_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis
    from kombu import Queue

    from tasks.broker.submission.put import Put

#: Options of ``apply_async`` that a message has as Celery would write it.
HANDLED = frozenset(
    {
        *("queue", "priority", "ignore_result", "shadow", "argsrepr", "kwargsrepr", "time_limit", "soft_time_limit"),
        *("group_id", "group_index", "root_id", "parent_id", "reply_to", "chain", "chord", "add_to_parent"),
    }
)
#: The options that a route may set.
_ROUTED = HANDLED | {"serializer"}
_PUBLISHING = (signals.before_task_publish, signals.after_task_publish, signals.task_sent)


class Direct:
    """Sends the requests of one task. Any thread may call it.

    Args:
        task: the task, which is bound to an application.
    """

    def __init__(self, task: Any) -> None:
        self._task = task
        self._app: Celery = task.app
        self._declared = Declared()

    def send(self, given: Sequence[Any], options: dict[str, Any]) -> Any:
        """Send a request; its result, or ``None`` where Celery has to send it.

        Args:
            given: arguments and keywords of plain JSON, id, producer, ``link`` and ``link_error``.
            options: the other arguments of ``apply_async``.

        Raises:
            GenerationError: it is refused, or Redis cannot be reached.
        """
        args, kwargs, task_id, producer, link, link_error = given
        if not (HANDLED.issuperset(options) and self._sends_for(producer)):
            return None
        merged = {**self._defaults, **options}
        route = self._app.amqp.router.route(merged, self._task.name, args, kwargs, task_type=self._task)
        queue = route.get("queue")
        if not _ROUTED.issuperset(route) or route.get("serializer", "json") != "json" or not _is_direct(queue):
            return None
        self._declared.once(queue, partial(self._declare, producer))
        task_id = task_id or uuid()
        headers, properties, body, _ = self._app.amqp.as_task_v2(
            task_id,
            self._task.name,
            args,
            kwargs,
            callbacks=maybe_list(link),
            errbacks=maybe_list(link_error),
            origin=producer.origin if producer is not None else None,
            **{name: value for name, value in route.items() if name not in ("queue", "serializer", "add_to_parent")},
        )
        properties["reply_to"] = properties["reply_to"] or self._app.thread_oid
        if route.get("priority") is not None:
            properties["priority"] = route["priority"]
        # What follows a request may have values of any kind.
        is_plain = not any(body[2].values())
        if producer is not None:
            producer.built = Built(body, headers, properties, queue.name)
            producer.submission.add(*producer.built, is_plain=is_plain)
        else:
            put = put_of(body, headers, properties, queue.name, settings_of(self._app), is_plain=is_plain)
            self._queue(put)
        result = self._task.AsyncResult(task_id)
        result.ignored = merged["ignore_result"]
        return result

    def _queue(self, put: Put) -> None:
        error = send_twice(lambda: queue_one(self._client, put), f"request {put.task_id}")
        if error is not None:
            raise error
        SENT.note(put)

    def _declare(self, given: Collector | None, queue: Queue) -> None:
        # A group is sent with a producer of its thread. Threads that took another one would wait for each other's.
        with self._app.producer_or_acquire(given) as producer:
            producer.maybe_declare(queue)

    def _sends_for(self, producer: Any) -> bool:
        """Return whether this sends, alone or for the collector of a group's members, or Celery does."""
        if producer is None:
            return self._is_plain()
        if not isinstance(producer, Collector):
            return False
        if producer.is_plain is None:
            producer.is_plain = self._is_plain()
        return producer.is_plain

    def _is_plain(self) -> bool:
        """Whether nobody expects that Celery sends: it was configured so, or somebody listens."""
        return (
            self._is_ours
            and not self._app.conf.task_always_eager
            and not self._app.conf.task_send_sent_event
            and self._app.current_worker_task is None
            and not any(signal.receivers for signal in _PUBLISHING)
            and _is_celerys(Task.apply_async)
            and _is_celerys(type(self._app).send_task)
            and "send_task" not in self._app.__dict__
        )

    @cached_property
    def _is_ours(self) -> bool:
        conf = self._app.conf
        return (
            isinstance(self._app.backend, Backend)
            and issubclass(self._app.connection_for_write().get_transport_cls(), Transport)
            and conf.task_protocol == 2
            and conf.task_serializer == "json"
            and not conf.task_compression
        )

    @property
    def routes_by_model(self) -> bool:
        """Whether the queue of a request follows from its model and its options alone."""
        return [maybe_evaluate(router) for router in self._app.amqp.router.routes] == [route_task]

    @cached_property
    def _defaults(self) -> dict[str, Any]:
        """The options that the task has itself."""
        found = {name: value for name, value in self._task._get_exec_options().items() if value is not None}
        return {"ignore_result": self._task.ignore_result, **found}

    @cached_property
    def _client(self) -> redis.Redis:
        return connect(self._app)


def _is_direct(queue: Any) -> bool:
    """Whether a message for this queue is put into its lists, by no exchange of its own."""
    exchange = getattr(queue, "exchange", None)
    return exchange is not None and exchange.type == "direct" and exchange.delivery_mode is None


def _is_celerys(function: Any) -> bool:
    """Whether this is Celery's own function, and nobody's around it."""
    return str(getattr(function, "__module__", "")).startswith("celery.") and not hasattr(function, "__wrapped__")

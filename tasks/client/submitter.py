"""How a task's requests are sent: checked, as a part of their group, and redacted for monitors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from celery import Task
from celery._state import get_current_worker_task

from tasks.broker.submission.sending import sending
from tasks.client.request.options import checked_id
from tasks.client.sending.alike import Alike
from tasks.client.sending.followers import follows, name_destinations, require_signatures
from tasks.client.sending.groups import Groups
from tasks.client.sending.redaction import redact
from tasks.client.sending.request import prepare, require_room, with_model
from tasks.errors import InvalidRequest
from tasks.names import ACCEPTED, is_ours
from worker_config.celeryconfig import DEFAULT_QUEUE

if TYPE_CHECKING:
    from tasks.broker.submission.submission import Collector


class Call(NamedTuple):
    """The arguments of ``apply_async`` beside options, in its order."""

    args: Any
    kwargs: Any
    task_id: Any
    producer: Any
    link: Any
    link_error: Any


class Submitter:
    """Sends the requests of one task. Any thread may call it.

    Args:
        task: the task, which is bound to an application.
    """

    def __init__(self, task: Any) -> None:
        self._task = task
        self._app = task.app
        self._form = task.form
        self._groups = Groups(task.app)

    def submit(self, given: Call, options: dict[str, Any]) -> Any:
        """Send a request; its result.

        Raises:
            GenerationError: it is refused, or Redis cannot be reached.
        """
        before = get_current_worker_task()
        if follows(before, options):
            with sending(self._app):
                return self._send_on(given._replace(kwargs=given.kwargs or {}), options, before)
        args, kwargs, task_id, producer, link, link_error = given
        task = self._task
        with self._groups.member(options, producer, task_id) as member:
            collector = member.collector
            if collector is not None and (sent := self._send_alike(collector, given, options)) is not None:
                member.note(sent.id)
                return sent
            request = prepare(args, kwargs, task_id, options, self._form)
            require_room(request.parameters, task.fleet)
            require_signatures(link=link, link_error=link_error)
            task.meet_redis()
            task.fleet.look(request.parameters, request.options.get("queue"))
            checked = Call(request.args, request.kwargs, request.task_id, member.producer, link, link_error)
            with sending(self._app):
                result = self._send(checked, request.options, before)
            member.note(result.id)
            if collector is not None:
                self._note_alike(collector, given, options)
        result.response_model = request.response_model
        return result

    def _send_alike(self, collector: Collector, given: Call, options: dict[str, Any]) -> Any:
        """Send a member of a group that is like the one before; its result, or ``None`` if it is not."""
        alike: Alike | None = collector.alike
        task_id = checked_id(given.task_id)
        built = alike.next(given, options, task_id) if alike is not None and task_id is not None else None
        if built is None:
            return None
        collector.submission.add(*built, is_plain=True)
        result = self._task.AsyncResult(task_id)
        result.ignored = built.headers["ignore_result"]
        return result

    def _note_alike(self, collector: Collector, given: Call, options: dict[str, Any]) -> None:
        built, collector.built, collector.alike = collector.built, None, None
        if built is not None and not self._task.settings.show_prompts and self._task.direct.routes_by_model:
            collector.alike = Alike.of(given, options, self._form, built)

    def _send(self, given: Call, options: dict[str, Any], before: Any) -> Any:
        args, kwargs, *more = given
        settings = self._task.settings
        if before is None or before.request.id != given.task_id:
            # Else it is sent on as it is, and known by its parameters.
            kwargs = with_model(kwargs, settings)
        name_destinations(self._app, options, given.link, given.link_error)
        if not settings.show_prompts:
            options = {**options, "argsrepr": "()", "kwargsrepr": redact(kwargs)}
        sent = self._task.direct.send((args, kwargs, *more), options)
        return Task.apply_async(self._task, args, kwargs, *more, **options) if sent is None else sent

    def _send_on(self, given: Call, options: dict[str, Any], before: Any) -> Any:
        """Send what follows a task; what cannot be routed goes to a worker that says so."""
        options = {**options, ACCEPTED: True}
        try:
            return self._send(given, options, before)
        except InvalidRequest:
            if "queue" in options:
                raise
            queue = before.request.delivery_info["routing_key"] if is_ours(before.name) else DEFAULT_QUEUE
            return self._send(given, {**options, "queue": queue}, before)

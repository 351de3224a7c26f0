"""The task ``generate``: its declaration, for producers. Its body is the worker's, and is reached only when it runs.

An application of its own includes this module: ``Celery("shop", include=["tasks.generate"])``; the ``generate`` here follows
the current application, as shared tasks do. ``from tasks import generate`` is bound to this project's application.
"""

from __future__ import annotations

from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, Unpack, cast

from celery import Task, shared_task, signals
from celery._state import get_current_worker_task
from celery.exceptions import TimeLimitExceeded
from kombu.exceptions import OperationalError

from tasks.errors import BrokerUnavailable, GenerationError, InvalidRequest
from tasks.names import GENERATE
from worker_config.settings import current_settings

if TYPE_CHECKING:
    from tasks.client.answer import Answer
    from tasks.client.fleet_view import FleetView
    from tasks.client.parameters import ParameterValues
    from tasks.client.result import GenerateResult


class GenerateTask(Task):
    """Checks a request where it is made, keeps its prompt out of monitors, and hands out results that stream."""

    abstract = True
    typing = False  # the parameters are checked by tasks.client.parameters, with better messages
    acks_late = True
    throws = (GenerationError, TimeLimitExceeded)  # expected: logged in one line, without a traceback
    Request = "tasks.worker.celery.request:GenerateRequest"
    _has_met_redis = False

    if TYPE_CHECKING:

        def delay(self, previous: Any = None, **parameters: Unpack[ParameterValues]) -> GenerateResult:
            """Send a request; see :class:`tasks.client.parameters.Parameters`."""

    def apply_async(
        self, args: Any = None, kwargs: dict[str, Any] | None = None, *more: Any, **options: Any
    ) -> GenerateResult:
        """Send a request, with any of Celery's options.

        Raises:
            InvalidRequest: a field is unknown, missing or out of bounds.
            UnknownModel: nobody allows the model.
            NoWorker: the request has ``require_worker``, and no live worker serves its tier.
            BrokerUnavailable: Redis cannot be reached, refuses this client or is too old.
        """
        # pydantic and redis are two thirds of the import's time.
        from tasks.client.parameters import parse, previous_of, redact, with_previous
        from tasks.server.connection import endpoint, is_away, trouble

        kwargs = kwargs or {}
        if get_current_worker_task() is None:
            # Inside a worker this is the next link of a chain: its own worker reports what is wrong with it, on its stream.
            parameters = parse(with_previous(previous_of(args), kwargs))
            self._meet_redis()
            self._look_at_fleet(
                parameters.model or current_settings().default_model, required=parameters.require_worker
            )
        if not current_settings().show_prompts:
            options["argsrepr"] = "()"
            options["kwargsrepr"] = redact(kwargs)
        try:
            return self._send(args, kwargs, *more, **options)
        except Exception as error:
            if not (isinstance(error, OperationalError) or is_away(error)):
                raise
            found = trouble(error.__cause__ or error)
            raise BrokerUnavailable(
                f"cannot send to {endpoint(self.app)} ({found.says}): {found.remedy}", found.entry
            ) from None

    def _send(self, *args: Any, **options: Any) -> GenerateResult:
        try:
            return cast("GenerateResult", super().apply_async(*args, **options))
        except InvalidRequest:
            before = get_current_worker_task()
            if before is None or "queue" in options:
                raise
            # Raised here, what cannot be routed would fail the link before it, which has been answered.
            queue = before.request.delivery_info["routing_key"]
            return cast("GenerateResult", super().apply_async(*args, **options, queue=queue))

    def _meet_redis(self) -> None:
        """Look at Redis before the first request: Celery would try for 20 s, and say nothing of a version."""
        if not (self._has_met_redis or self.app.conf.task_always_eager):
            from tasks.server.connection import require_server

            require_server(self.app)
            self._has_met_redis = True

    @cached_property
    def fleet(self) -> FleetView:
        """What this producer sees of the fleet."""
        from tasks.client.fleet_view import FleetView

        return FleetView(self.app)

    def _look_at_fleet(self, model: str, *, required: bool) -> None:
        if required:
            self.fleet.require(model)
        else:
            self.fleet.warn(model)

    def apply(self, *args: Any, **options: Any) -> Any:
        """Run here and now, without Redis: for people's own tests. The result streams too, as one chunk."""
        return import_module("tasks.worker.eager").eager_result(super().apply(*args, **options))

    def AsyncResult(self, task_id: str, **options: Any) -> GenerateResult:  # noqa: N802  (Celery's name)
        """The result of a request that was sent, here or by another process."""
        from tasks.client.result import GenerateResult

        return GenerateResult(task_id, backend=self.backend, task_name=self.name, app=self.app, **options)


def run(task: GenerateTask, previous: Any = None, /, **values: Any) -> Answer:
    """The body, on a worker: see :mod:`tasks.worker.attempts.run`."""
    module = "tasks.worker.eager" if task.request.is_eager else "tasks.worker.attempts.run"
    return cast("Answer", import_module(module).generate(task, previous, values))


@signals.celeryd_init.connect
def _become_worker(**_: Any) -> None:
    """A worker that includes this module starts in this process: connect its side of it."""
    import_module("tasks.worker.celery.lifecycle").prepare()


@signals.beat_init.connect
def _begin_sweep(sender: Any, **_: Any) -> None:
    """Beat starts in this process: the sweep runs beside it."""
    import_module("tasks.sweep").start_sweep(sender.app)


generate: GenerateTask = shared_task(run, name=GENERATE, base=GenerateTask, bind=True)

"""The task ``generate`` as producers declare it. The worker has its body, which is imported when the task runs.

Another application includes this module: ``Celery("shop", include=["tasks.generate"])``. The ``generate`` here is a shared task
and follows the current application; ``from tasks import generate`` is bound to this project's application.
"""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NoReturn, Unpack, cast

from celery import Celery, Task
from celery.exceptions import TimeLimitExceeded

from tasks.client.request.signature import KeywordSignature
from tasks.client.sending.signature import RequestSignature
from tasks.errors import GenerationError, InvalidRequest
from tasks.names import GENERATE, PACKAGE
from tasks.roles import declared, run_body

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tasks.broker.direct import Direct
    from tasks.bulk.finished import Finished
    from tasks.bulk.job import Job, Options
    from tasks.bulk.source import Given
    from tasks.client.answers.answer import Answer
    from tasks.client.request.form import Form
    from tasks.client.request.parameters import ParameterValues
    from tasks.client.result import GenerateResult
    from tasks.client.sending.fleet_view import FleetView
    from tasks.client.sending.sender import Sender
    from tasks.client.submitter import Submitter
    from worker_config.settings import Settings


class GenerateTask(Task):
    """Checks a request before it is sent, keeps its prompt out of monitors, and returns results that stream."""

    abstract = True
    typing = False  # the parameters are checked by tasks.client.request.parameters, with better messages
    # An application's own tasks may differ: the fleet reads JSON alone, and a request is sent for its answer.
    acks_late, serializer, ignore_result = True, "json", False
    throws = (GenerationError, TimeLimitExceeded)  # expected: logged in one line, without a traceback
    Request = f"{PACKAGE}.worker.celery.request:GenerateRequest"
    _has_met_redis = False
    #: The errors for calling the task as a function, and for several calls in one task of Celery's.
    instead_of_call = (
        "generate cannot be called: use generate.delay(...) and its result's .stream() or .get(), "
        "generate.bulk([...]) for many requests, or generate.apply(kwargs={...}) in tests without Redis"
    )
    instead_of_sequence = (
        "map, starmap and chunks make their calls one after another, in one task: use generate.bulk([...]) or a group, whose "
        "requests run together"
    )

    __signature__ = KeywordSignature(".parameters", "GenerateResult")

    @__signature__.of
    def delay(self, *previous: Any, **parameters: Unpack[ParameterValues]) -> GenerateResult:
        """Send a request: ``help(generate)`` has the parameters, :meth:`apply_async` the errors and Celery's options."""
        return self.apply_async(previous, dict(parameters))

    @__signature__.of
    async def adelay(self, *previous: Any, **parameters: Unpack[ParameterValues]) -> GenerateResult:
        """Do as :meth:`delay` without blocking the event loop. Cancelling the call takes the request back."""
        return await self.aapply_async(previous, dict(parameters))

    async def aapply_async(self, *args: Any, **options: Any) -> GenerateResult:
        """Do as :meth:`apply_async` without blocking the event loop, with the same arguments and errors."""
        return await self.sender.send(lambda: self.apply_async(*args, **options))

    @classmethod
    def on_bound(cls, app: Any) -> None:
        """Make a group's ``revoke()`` work as that of a result, unless the application has a remote control of its own."""
        if app.control_cls == Celery.control_cls:
            app.control_cls = f"{PACKAGE}.broker.control:Control"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the body. Only a worker may: a producer sends a request."""
        if self.request.called_directly:
            raise InvalidRequest(self.instead_of_call)
        return self.run(*args, **kwargs)

    def _refuse_sequence(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse ``map``, ``starmap`` and ``chunks``, which make several calls one after another in one task."""
        raise InvalidRequest(self.instead_of_sequence)

    map = starmap = chunks = _refuse_sequence

    def signature(self, args: Any = None, kwargs: dict[str, Any] | None = None, *more: Any, **options: Any) -> Any:
        """Return Celery's signature with plain data as its values: as a later link of a chain it travels in a message.

        Raises:
            InvalidRequest: a value is no data, or is nested too deeply.
        """
        from tasks.client.request.parameters import plain_field
        from tasks.client.sending.request import arguments

        args, kwargs = arguments(args, kwargs)
        values = {name: plain_field(str(name), value) for name, value in kwargs.items()}
        return RequestSignature(self, args, values, *more, of=self, **{"app": self.app, **options})

    subtask = signature

    def apply_async(
        self,
        args: Any = None,
        kwargs: dict[str, Any] | None = None,
        task_id: Any = None,
        producer: Any = None,
        link: Any = None,
        link_error: Any = None,
        shadow: Any = None,
        **options: Any,
    ) -> GenerateResult:
        """Send a request, with any of Celery's options.

        Raises:
            InvalidRequest: a field or an option is unknown, missing or out of bounds.
            UnknownModel: nobody allows the model.
            NoWorker: the request has ``require_worker``, and no live worker serves its tier.
            QueueFull: too many requests wait in the tier's queue.
            BrokerUnavailable: Redis cannot be reached, refuses this client or is too old.
        """
        from tasks.client.submitter import Call

        options["shadow"] = shadow
        given = Call(args, kwargs, task_id, producer, link, link_error)
        return cast("GenerateResult", self.submitter.submit(given, options))

    def bulk(
        self, source: Given, output: Any = None, *, errors: Any = None, options: Options | None = None, **defaults: Any
    ) -> Iterator[Finished]:
        """Answer many requests on idle slots, and return an iterator of finished lines, in the order in which they end.

        Args:
            source: the path of a JSONL file, a binary stream, or an iterable of parameters (dictionaries) or of prompts. Lines of
                a file are OpenAI's batch lines, or parameters of ``generate`` with an optional ``id``.
            output: a path or a binary stream. Each line is written there before the iterator yields it. If source and output
                are paths, the job may be killed at any time: the same call continues it.
            errors: a path or a binary stream for lines that fail; without it the output gets them.
            options: deadline, tries and priority.
            defaults: parameters for all lines. A parameter in a line overrides its default.

        Raises:
            InvalidRequest: source or output cannot be used; the message says what to do.
            BrokerUnavailable: Redis cannot be reached at the start.
        """
        from tasks.bulk.iteration import finished_of

        return finished_of(self._bulk_job(source, output, errors, options, defaults))

    def abulk(
        self, source: Given, output: Any = None, *, errors: Any = None, options: Options | None = None, **defaults: Any
    ) -> AsyncIterator[Finished]:
        """Do as :meth:`bulk` without blocking the event loop."""
        from tasks.bulk.iteration import afinished_of

        return afinished_of(partial(self._bulk_job, source, output, errors, options, defaults))

    def _bulk_job(
        self, source: Given, output: Any, errors: Any, options: Options | None, defaults: dict[str, Any]
    ) -> Job:
        from tasks.bulk.job import Job

        self.meet_redis()
        return Job(self.app, source, output, defaults, options, errors)

    def meet_redis(self) -> None:
        """Check Redis before the first request. Celery would retry for 20 s, and not mention an old version."""
        if not (self._has_met_redis or self.app.conf.task_always_eager):
            from tasks.client.sending.contact import meet

            meet(self.app)
            self._has_met_redis = True

    @property
    def settings(self) -> Settings:
        """The settings of this producer."""
        return self.fleet.settings

    @property
    def form(self) -> Form[Any]:
        """The form of the task's requests."""
        from tasks.client.sending.request import GENERATION

        return GENERATION

    @cached_property
    def direct(self) -> Direct:
        """The sender that takes none of Celery's detours."""
        from tasks.broker.direct import Direct

        return Direct(self)

    @cached_property
    def submitter(self) -> Submitter:
        """The submitter, which checks and sends requests."""
        from tasks.client.submitter import Submitter  # pydantic and redis are two thirds of the import's time

        return Submitter(self)

    @cached_property
    def sender(self) -> Sender:
        """The sender for programs that use asyncio."""
        from tasks.broker.inventory.withdraw import withdraw
        from tasks.client.sending.sender import Sender

        return Sender(lambda result: withdraw(self.app, [result.id]))

    @cached_property
    def fleet(self) -> FleetView:
        """This producer's view of the fleet."""
        from tasks.client.sending.fleet_view import FleetView

        return FleetView(self.app)

    def apply(self, args: Any = None, kwargs: dict[str, Any] | None = None, **options: Any) -> Any:
        """Answer in this process, without Redis, for a program's tests. The result streams, too, as one chunk."""
        from tasks.client.answers.answer_type import response_model
        from tasks.client.eager import eager_result
        from tasks.client.request.options import checked
        from tasks.client.sending.request import arguments

        checked(options, self.form.fields)
        return eager_result(super().apply(*arguments(args, kwargs), **options), response_model(kwargs))

    def AsyncResult(self, task_id: str, **options: Any) -> GenerateResult:  # noqa: N802  (Celery's name)
        """Return the result of a request that this process or another one sent."""
        from tasks.client.result import GenerateResult

        return GenerateResult(task_id, backend=self.backend, task_name=self.name, app=self.app, **options)


def run(task: GenerateTask, previous: Any = None, /, **values: Any) -> Answer:
    """Ask a model. ``generate.delay(messages=[{"role": "user", "content": "Hello"}])`` sends a request and returns its result.

    ``result.stream()`` yields the answer as it is made, and ``result.get()`` returns all of it. ``generate.s(...)`` is a
    signature for ``group``, ``chain`` and ``chord``. ``generate.apply(kwargs={...})`` answers in this process, without Redis,
    for tests. docs/api.md has the bounds of the parameters.
    """
    return cast("Answer", run_body(task, previous, values))


run.__name__ = run.__qualname__ = "generate"  # the name in help()

generate: GenerateTask = declared(run, GENERATE, GenerateTask)

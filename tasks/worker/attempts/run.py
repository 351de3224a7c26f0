"""One delivery of one request, on a thread of the pool: load, claim, submit, wait, end."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NoReturn

from celery.exceptions import Ignore, Reject, TimeLimitExceeded

from tasks.errors import GenerationError, UnknownModel, error_for
from tasks.messages.journal import End, Error
from tasks.worker.attempts import log
from tasks.worker.attempts.attempt import Fenced
from tasks.worker.attempts.job import Stopped
from tasks.worker.engines.waiting import Interrupted, SetAside
from worker_config.catalogue import ModelNotAllowed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.broker.message.prefix import Prefix
    from tasks.client.answers.answer import Answer
    from tasks.client.request.form import Common
    from tasks.messages.engine import Work
    from tasks.worker.attempts.attempt import Attempt, Outcome
    from tasks.worker.attempts.context import RunContext
    from tasks.worker.attempts.delivery import Delivery
    from tasks.worker.attempts.job import StopReason
    from tasks.worker.attempts.work import AnyWork
    from tasks.worker.engines.engine import Engine
    from worker_config.catalogue import ModelEntry


class Run:
    """One delivery of one request, on one thread."""

    def __init__(self, context: RunContext, delivery: Delivery, work: AnyWork) -> None:
        self._context = context
        self._delivery = delivery
        self._job = delivery.job
        self._work = work
        self._prefixes: Sequence[Prefix] = ()
        #: The model as the request names it; empty where it names none.
        self._model = ""

    def answer(self, previous: Any, values: dict[str, Any]) -> Answer:
        """See :func:`tasks.worker.celery.body.run`."""
        try:
            entry, parameters = self._understand(previous, values)
        except GenerationError as error:
            self._refuse(error)
        self._prefixes = self._context.accounts.warmth.prefixes(previous, values)
        timer = self._deadline_timer(parameters)
        try:
            while True:
                # Two deliveries have one tag: acknowledged before there is a result, the second would take the first one's record
                # with it. It waits, and ends as the first does.
                with self._context.exclusive.having(self._job.task_id):
                    outcome, attempt = self._attempt(entry, parameters)
                    self._context.claims.forget(self._job.task_id)
                if isinstance(outcome, End):
                    return self._conclude(outcome, attempt, parameters)
                if isinstance(outcome, Error):
                    self._fail(outcome)
                if isinstance(outcome, Fenced):
                    raise Ignore
                if self._job.reason == "requeue":
                    raise Reject(requeue=True)
        finally:
            if timer is not None:
                timer.cancel()

    def _understand(self, previous: Any, values: dict[str, Any]) -> tuple[ModelEntry, Common]:
        """The model and the parameters, with the model's own defaults."""
        profile = self._context.profile
        self._model = values.get("model") or ""
        try:
            entry = profile.catalogue.resolve(str(self._model or profile.settings.default_model))
        except ModelNotAllowed as error:
            raise UnknownModel(str(error)) from None
        return entry, self._work.form.parse(previous, values, entry.defaults)

    def _attempt(self, entry: ModelEntry, parameters: Common) -> tuple[Outcome, Attempt]:
        """Load, claim, and compute once; a deadline that cannot be met costs no engine anything."""
        if self._is_late(parameters):
            return self._too_late(self._claim(entry))
        engines = self._context.engines
        try:
            engine = engines.acquire(entry, self._job)
        except Interrupted:
            if self._job.reason == "soft_time_limit" and self._is_late(parameters):
                return self._too_late(self._claim(entry))
            self._stopped_before_claim()
        except SetAside as error:
            self._context.holding.set_aside(self._delivery.tag, error.key)
            raise Reject(requeue=True) from None
        except GenerationError as error:
            self._refuse(error)
        try:
            assert engine.ready is not None
            self._context.claims.serve(self._model, engine)
            attempt = self._claim(entry)
            has_deadline = parameters.deadline is not None
            if has_deadline and self._is_late(parameters, self._context.accounts.first_tokens.soonest_s(entry.name)):
                return self._too_late(attempt)
            if attempt.outcome is None:
                self._compute(engine, attempt, self._work.message(attempt, parameters, entry, engine.ready))
            return attempt.wait(), attempt
        finally:
            engines.release(engine, parameters.keep_alive_s)

    def _claim(self, entry: ModelEntry) -> Attempt:
        return self._context.claiming.claim(self._delivery, entry.name, self._work)

    def _too_late(self, attempt: Attempt) -> tuple[Outcome, Attempt]:
        """End a request whose deadline is past, or nearer than any first token, with the text of earlier attempts."""
        if attempt.outcome is None:
            accounts = self._context.accounts
            accounts.started(self._delivery, attempt)
            self._context.claiming.end(attempt, attempt.late())
            accounts.ended(attempt, attempt.wait())
        return attempt.wait(), attempt

    def _compute(self, engine: Engine, attempt: Attempt, message: Work) -> None:
        """Hand the request to the engine, and give the job a way to stop it."""
        accounts, in_engine = self._context.accounts, self._context.in_engine
        in_engine[attempt.task_id] = self._job

        def stop(reason: StopReason) -> None:
            engine.stop(attempt, reason, self._job.limit_s)

        accounts.started(self._delivery, attempt)
        accounts.warmth.computing(attempt.model, self._prefixes)
        try:
            engine.submit(attempt, message)
            self._job.on_stop(stop)
            outcome = attempt.wait()
        finally:
            self._job.on_stop(None)
            engine.forget(attempt)
            in_engine.pop(attempt.task_id, None)
        accounts.computed(attempt, self._prefixes)
        accounts.ended(attempt, outcome)

    def _is_late(self, parameters: Common, first_token_s: float = 0.0) -> bool:
        """Whether the deadline passes within so many seconds. It is the producer's; this machine's clock may be far from that."""
        return parameters.deadline is not None and parameters.deadline <= self._context.clock.now() + first_token_s

    def _deadline_timer(self, parameters: Common) -> threading.Timer | None:
        if parameters.deadline is None:
            return None
        left_s = max(0.0, parameters.deadline - self._context.clock.now())
        timer = threading.Timer(left_s, self._job.stop, ("soft_time_limit",))
        timer.daemon = True
        timer.start()
        return timer

    def _conclude(self, end: End, attempt: Attempt, parameters: Common) -> Answer:
        """The request's result, or the cancel that ended it."""
        if end.finish_reason == "cancelled":
            raise Stopped
        answer: Answer = self._work.answer(attempt, parameters, end, self._context.profile.node)
        return answer

    def _fail(self, error: Error) -> NoReturn:
        if self._job.reason == "time_limit" and error.code == "deadline_exceeded":
            raise TimeLimitExceeded(self._job.limit_s)
        raise error_for(error.code)(error.message)

    def _refuse(self, error: GenerationError) -> NoReturn:
        """End a request that cannot be run: on its stream, then as its result."""
        claiming = self._context.claiming
        claiming.require_own(self._delivery)
        claiming.end_unclaimed(
            self._delivery, Error(attempt=0, code=error.code, message=str(error), retryable=error.retryable)
        )
        self._context.accounts.refused(self._delivery, error)
        raise error

    def _stopped_before_claim(self) -> NoReturn:
        reason = self._job.reason
        if reason in (None, "requeue"):  # without a reason of the request's own: the worker ends
            raise Reject(requeue=True)
        if reason == "cancelled":
            end = End(attempt=0, index=0, finish_reason="cancelled", usage={})
            self._context.claiming.end_unclaimed(self._delivery, end)
            log.log(self._job.task_id, "cancelled", why="before its model was loaded")
            raise Stopped
        message = f"the time limit of {self._job.limit_s or 0:g} s passed before the model was loaded"
        self._refuse(error_for("deadline_exceeded")(message))

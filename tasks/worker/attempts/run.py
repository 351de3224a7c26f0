"""One delivery of one request, on a thread of the pool: load, claim, submit, wait, end."""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from celery.exceptions import Ignore, Reject, TimeLimitExceeded

from tasks.broker.fingerprint import other_request
from tasks.errors import BrokerUnavailable, EngineFailed, GenerationError, InvalidRequest, UnknownModel, error_for
from tasks.journal.writer import new_nonce
from tasks.messages.journal import End, Error, Release
from tasks.worker.attempts import log
from tasks.worker.attempts.attempt import Fenced
from tasks.worker.attempts.job import Stopped
from tasks.worker.engines.waiting import Interrupted, SetAside
from worker_config.catalogue import ModelNotAllowed

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.broker.prefix import Prefix
    from tasks.client.answer import Answer
    from tasks.client.form import Common
    from tasks.journal.claim_answer import ClaimAnswer
    from tasks.journal.items import Asks
    from tasks.messages.engine import Isolation, Work
    from tasks.metrics.collector import Outcome as MetricOutcome
    from tasks.worker.attempts.attempt import Attempt, Outcome
    from tasks.worker.attempts.job import Job, StopReason
    from tasks.worker.attempts.work import AnyWork
    from tasks.worker.engines.engine import Engine
    from tasks.worker.worker import InferenceWorker
    from worker_config.catalogue import ModelEntry

logger = logging.getLogger(__name__)

#: A request that was in the batch of so many engines when they died is not tried again.
MOST_ENGINE_CRASHES = 3
#: Nor is one that so many engines and workers, in all, died with. A worker's death says little of its requests, since
#: models live in engines: it casts no suspicion, so that what ran on a lost machine goes on at once elsewhere.
MOST_CRASHES = 6
#: How a request is batched after so many crashes of its engine.
ISOLATION: tuple[Isolation, ...] = ("", "suspects", "alone")

Value = TypeVar("Value")


class Run:
    """One delivery of one request, on one thread."""

    def __init__(
        self, worker: InferenceWorker, job: Job, task_id: str, delivery_tag: str, asks: Asks, work: AnyWork
    ) -> None:
        self._worker = worker
        self._job = job
        self._task_id = task_id
        self._delivery_tag = delivery_tag
        self._asks = asks
        self._work = work
        self._prefixes: list[Prefix] = []
        #: The model as the request names it; empty where it names none.
        self._model = ""

    def answer(self, previous: Any, values: dict[str, Any]) -> Answer:
        """See :func:`tasks.worker.celery.body.run`."""
        try:
            entry, parameters = self._understand(previous, values)
        except GenerationError as error:
            self._refuse(error)
        self._prefixes = self._worker.warmth.prefixes(previous, values)
        timer = self._deadline_timer(parameters)
        try:
            while True:
                # Two deliveries have one tag: acknowledged before there is a result, the second would take the first one's record
                # with it. It waits, and ends as the first does.
                with self._worker.exclusive.having(self._task_id):
                    outcome, attempt = self._attempt(entry, parameters)
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
        self._model = values.get("model") or ""
        name = self._model or self._worker.profile.settings.default_model
        try:
            entry = self._worker.profile.catalogue.resolve(str(name))
        except ModelNotAllowed as error:
            raise UnknownModel(str(error)) from None
        return entry, self._work.form.parse(previous, values, entry.defaults)

    def _attempt(self, entry: ModelEntry, parameters: Common) -> tuple[Outcome, Attempt]:
        """Load, claim, and compute once; a deadline that cannot be met costs no engine anything."""
        if self._is_late(parameters):
            return self._too_late(self._claim(entry))
        try:
            engine = self._worker.engines.acquire(entry, self._job)
        except Interrupted:
            if self._job.reason == "soft_time_limit" and self._is_late(parameters):
                return self._too_late(self._claim(entry))
            self._stopped_before_claim()
        except SetAside as error:
            self._worker.holding.aside[self._delivery_tag] = error.key
            raise Reject(requeue=True) from None
        except GenerationError as error:
            self._refuse(error)
        try:
            assert engine.ready is not None
            self._worker.claims.serve(self._model, engine)
            attempt = self._claim(entry)
            if self._is_late(parameters, self._worker.first_tokens.soonest_s(entry.name)):
                return self._too_late(attempt)
            if attempt.outcome is None:
                self._compute(engine, attempt, self._work.message(attempt, parameters, entry, engine.ready))
            return attempt.wait(), attempt
        finally:
            self._worker.engines.release(engine, parameters.keep_alive_s)

    def _too_late(self, attempt: Attempt) -> tuple[Outcome, Attempt]:
        """End a request whose deadline is past, or nearer than any first token, with what earlier attempts have said."""
        if attempt.outcome is None:
            self._note_start(attempt)
            self._worker.links.publisher.put([(attempt, attempt.late())])
            self._worker.metrics.ended(self._task_id, _metric(attempt.wait()))
            log.ended(attempt, attempt.wait())
        return attempt.wait(), attempt

    def _claim(self, entry: ModelEntry) -> Attempt:
        """Take the request; an attempt that has finished already is not to be computed."""
        claim = self._worker.claims.take(self._task_id, self._delivery_tag) or self._new_claim()
        if claim.kind == "other":
            self._drop_other()
        if claim.kind == "busy":
            logger.info("request %s is run by %s; this delivery is dropped", self._task_id, claim.owner)
            raise Ignore
        attempt: Attempt = self._work.attempt(self._task_id, claim, entry.name, self._job.held)
        attempt.gives_way = self._job.is_batch_work and self._worker.profile.settings.batch_share < 1
        self._worker.links.publisher.open(attempt, instead_of=self._job.attempt)
        self._job.attempt = attempt
        engine_crashes = sum(isinstance(earlier, Release) and earlier.crashed for earlier in claim.entries)
        if claim.kind == "ended":
            attempt.found(_last_outcome(claim))
        elif claim.kind == "cancelled":
            self._job.stop("cancelled")
            self._worker.links.publisher.put([(attempt, attempt.end("cancelled"))])
            attempt.wait()
        elif engine_crashes >= MOST_ENGINE_CRASHES or claim.crashes >= MOST_CRASHES:
            message = f"{claim.crashes} engines or workers died while they ran this request; it is not tried again"
            self._worker.links.publisher.put([(attempt, attempt.error(EngineFailed.code, message))])
            attempt.wait()
        else:
            attempt.isolate = ISOLATION[engine_crashes]
        return attempt

    def _new_claim(self) -> ClaimAnswer:
        identity, nonce = self._worker.profile.identity, new_nonce()
        return self._patiently(
            lambda: self._worker.links.journal.claim(
                self._task_id, identity, nonce, delivery=self._delivery_tag, asks=self._asks
            )
        )

    def _compute(self, engine: Engine, attempt: Attempt, message: Work) -> None:
        """Hand the request to the engine, and what may stop it to the job."""
        self._worker.in_engine[self._task_id] = self._job

        def stop(reason: StopReason) -> None:
            engine.stop(attempt, reason, self._job.limit_s)

        self._note_start(attempt)
        self._worker.warmth.computing(attempt.model, self._prefixes)
        try:
            engine.submit(attempt, message)
            self._job.on_stop(stop)
            outcome = attempt.wait()
        finally:
            self._job.on_stop(None)
            engine.forget(attempt)
            self._worker.in_engine.pop(self._task_id, None)
        if attempt.first_token_at is not None:
            self._worker.first_tokens.note(attempt.model, attempt.first_token_at - attempt.claimed_at)
            self._worker.warmth.computed(attempt, self._prefixes)
        self._worker.metrics.ended(
            self._task_id, _metric(outcome), prompt_tokens=attempt.prompt_tokens, cached_tokens=attempt.cached_tokens
        )
        if isinstance(outcome, Error):
            self._note_failure(attempt.model, outcome.code, outcome.message)
        log.ended(attempt, outcome)

    def _note_failure(self, model: str, code: str, message: str) -> None:
        # What is wrong with a request is said with its own words, which may be a part of a prompt.
        reason = "" if issubclass(error_for(code), InvalidRequest) else message
        self._worker.metrics.failures.note(self._task_id, model, code, reason)

    def _note_start(self, attempt: Attempt) -> None:
        queue, resumed = self._job.queue, bool(attempt.ids)
        self._worker.metrics.started(self._task_id, attempt.model, attempt.queued_ms, resumed=resumed, queue=queue)

    def _is_late(self, parameters: Common, first_token_s: float = 0.0) -> bool:
        """Whether the deadline passes within so many seconds. It is the producer's; this machine's clock may be far from that."""
        return parameters.deadline is not None and parameters.deadline <= self._worker.links.clock.now() + first_token_s

    def _deadline_timer(self, parameters: Common) -> threading.Timer | None:
        if parameters.deadline is None:
            return None
        timer = threading.Timer(
            max(0.0, parameters.deadline - self._worker.links.clock.now()), self._job.stop, ("soft_time_limit",)
        )
        timer.daemon = True
        timer.start()
        return timer

    def _conclude(self, end: End, attempt: Attempt, parameters: Common) -> Answer:
        """The request's result, or the cancel that ended it."""
        if end.finish_reason == "cancelled":
            raise Stopped
        answer: Answer = self._work.answer(attempt, parameters, end, self._worker.profile.node)
        return answer

    def _fail(self, error: Error) -> NoReturn:
        if self._job.reason == "time_limit" and error.code == "deadline_exceeded":
            raise TimeLimitExceeded(self._job.limit_s)
        raise error_for(error.code)(error.message)

    def _refuse(self, error: GenerationError) -> NoReturn:
        """End a request that cannot be run: on its stream, then as its result."""
        if self._patiently(lambda: self._worker.links.journal.is_other(self._task_id, self._asks)):
            self._drop_other()
        entry = Error(attempt=0, code=error.code, message=str(error), retryable=error.retryable)
        self._end_unclaimed(entry)
        self._worker.metrics.started(self._task_id, "(refused)", queue=self._job.queue)
        self._worker.metrics.ended(self._task_id, "failed")
        self._note_failure("", error.code, str(error))
        log.refused(self._task_id, error)
        raise error

    def _drop_other(self) -> NoReturn:
        """The request that was first has the id, its journal and its result: it is not disturbed."""
        logger.error("a message was dropped: %s", other_request(self._task_id))
        raise Ignore

    def _stopped_before_claim(self) -> NoReturn:
        reason = self._job.reason
        if reason in (None, "requeue"):  # for no reason of its own: the worker ends
            raise Reject(requeue=True)
        if reason == "cancelled":
            end = End(attempt=0, index=0, finish_reason="cancelled", usage={})
            self._end_unclaimed(end)
            log.log(self._task_id, "cancelled", why="before its model was loaded")
            raise Stopped
        message = f"the time limit of {self._job.limit_s or 0:g} s passed before the model was loaded"
        self._refuse(error_for("deadline_exceeded")(message))

    def _end_unclaimed(self, entry: End | Error) -> None:
        nonce = self._worker.claims.nonce(self._task_id)
        self._patiently(lambda: self._worker.links.journal.end_unclaimed(self._task_id, entry, nonce))

    def _patiently(self, call: Callable[[], Value]) -> Value:
        """Call Redis until it answers: an outage delays a request and never fails it."""
        pause_s = 0.05
        while True:
            try:
                return call()
            except BrokerUnavailable as error:
                if self._job.reason == "requeue":
                    raise Reject(requeue=True) from error
                logger.warning("%s; trying again", error)
            time.sleep(pause_s * random.uniform(0.5, 1.5))
            pause_s = min(pause_s * 2, 1.0)


def _metric(outcome: Outcome) -> MetricOutcome:
    """How the metrics call an outcome."""
    if isinstance(outcome, Error):
        return "failed"
    if not isinstance(outcome, End):
        return "released"
    return "cancelled" if outcome.finish_reason == "cancelled" else "succeeded"


def _last_outcome(claim: ClaimAnswer) -> Outcome:
    last = claim.entries[-1]
    assert isinstance(last, End | Error)
    return last

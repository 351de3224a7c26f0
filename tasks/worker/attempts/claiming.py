"""Claiming requests for this worker, and ending those that no attempt ends."""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING, NoReturn, TypeVar

from celery.exceptions import Ignore, Reject

from tasks.broker.message.fingerprint import other_request
from tasks.errors import BrokerUnavailable, EngineFailed
from tasks.journal.writer import new_nonce
from tasks.messages.journal import End, Error, Release

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.journal.claim_answer import ClaimAnswer
    from tasks.journal.writer import Journal
    from tasks.messages.engine import Isolation
    from tasks.worker.attempts.attempt import Attempt, Outcome
    from tasks.worker.attempts.claims import Claims
    from tasks.worker.attempts.delivery import Delivery
    from tasks.worker.attempts.job import Job
    from tasks.worker.attempts.publisher import Publisher
    from tasks.worker.attempts.work import AnyWork
    from tasks.worker.profile.profile import Profile

logger = logging.getLogger(__name__)

#: A request that was in the batch of this many engines when they died is not tried again.
MOST_ENGINE_CRASHES = 3
#: The bound on crashes of engines and workers together. A worker's death says little of its requests, since models live in
#: engines: it casts no suspicion, so that requests of a lost machine go on at once elsewhere.
MOST_CRASHES = 6
#: The way to batch a request, by the number of crashes of its engine.
ISOLATION: tuple[Isolation, ...] = ("", "suspects", "alone")

Value = TypeVar("Value")


class Claiming:
    """Claims requests. It calls Redis until Redis answers: an outage delays a request and never fails it.

    Args:
        profile: the worker's name and settings.
        journal: the journals of requests.
        publisher: writes the ends of claimed requests.
        claims: the claims that were written as messages were fetched.
    """

    def __init__(self, profile: Profile, journal: Journal, publisher: Publisher, claims: Claims) -> None:
        self._profile = profile
        self._journal = journal
        self._publisher = publisher
        self._claims = claims

    def claim(self, delivery: Delivery, model: str, work: AnyWork) -> Attempt:
        """Return an attempt at the request. It has an outcome already if there is nothing to compute.

        Raises:
            Ignore: another worker has the request, or another request has its id.
        """
        job = delivery.job
        claim = self._claims.take(delivery.task_id, delivery.tag) or self._new_claim(delivery)
        if claim.kind == "other":
            self._drop_other(delivery)
        if claim.kind == "busy":
            logger.info("request %s is run by %s; this delivery is dropped", delivery.task_id, claim.owner)
            raise Ignore
        if claim.kind == "elsewhere":
            logger.warning(
                "request %s was given back while this worker was silent; this delivery is dropped", delivery.task_id
            )
            raise Ignore
        attempt: Attempt = work.attempt(delivery.task_id, claim, model, job.held)
        attempt.gives_way = job.is_batch_work and self._profile.settings.batch_share < 1
        self._publisher.open(attempt, instead_of=job.attempt)
        job.attempt = attempt
        self._end_if_over(job, attempt, claim)
        return attempt

    def end(self, attempt: Attempt, entry: End | Error) -> None:
        """End an attempt that no engine has, and wait until the journal has the end."""
        self._publisher.put([(attempt, entry)])
        attempt.wait()

    def end_unclaimed(self, delivery: Delivery, entry: End | Error) -> None:
        """End a request that was not claimed."""
        nonce = self._claims.nonce(delivery.task_id)
        self._patiently(delivery.job, lambda: self._journal.end_unclaimed(delivery.task_id, entry, nonce))

    def require_own(self, delivery: Delivery) -> None:
        """Drop a delivery whose id another request has.

        Raises:
            Ignore: it is dropped.
        """
        if self._patiently(delivery.job, lambda: self._journal.is_other(delivery.task_id, delivery.asks)):
            self._drop_other(delivery)

    def _end_if_over(self, job: Job, attempt: Attempt, claim: ClaimAnswer) -> None:
        engine_crashes = sum(isinstance(earlier, Release) and earlier.crashed for earlier in claim.entries)
        if claim.kind == "ended":
            attempt.found(_last_outcome(claim))
        elif claim.kind == "cancelled":
            job.stop("cancelled")
            self.end(attempt, attempt.end("cancelled"))
        elif engine_crashes >= MOST_ENGINE_CRASHES or claim.crashes >= MOST_CRASHES:
            message = f"{claim.crashes} engines or workers died while they ran this request; it is not tried again"
            self.end(attempt, attempt.error(EngineFailed.code, message))
        else:
            attempt.isolate = ISOLATION[engine_crashes]

    def _new_claim(self, delivery: Delivery) -> ClaimAnswer:
        identity, nonce = self._profile.identity, new_nonce()
        return self._patiently(
            delivery.job,
            lambda: self._journal.claim(delivery.task_id, identity, nonce, delivery=delivery.tag, asks=delivery.asks),
        )

    def _drop_other(self, delivery: Delivery) -> NoReturn:
        """Drop the message. The earlier request of its id keeps the id, its journal and its result."""
        logger.error("a message was dropped: %s", other_request(delivery.task_id))
        raise Ignore

    def _patiently(self, job: Job, call: Callable[[], Value]) -> Value:
        """Call Redis until it answers, or until the worker gives the request back."""
        pause_s = 0.05
        while True:
            try:
                return call()
            except BrokerUnavailable as error:
                if job.reason == "requeue":
                    raise Reject(requeue=True) from error
                logger.warning("%s; trying again", error)
            time.sleep(pause_s * random.uniform(0.5, 1.5))
            pause_s = min(pause_s * 2, 1.0)


def _last_outcome(claim: ClaimAnswer) -> Outcome:
    last = claim.entries[-1]
    assert isinstance(last, End | Error)
    return last

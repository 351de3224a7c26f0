"""One worker: its parts, and the sequences in which it starts, drains and ends. Knows nothing of signals."""

from __future__ import annotations

import logging
import os
from functools import partial
from typing import TYPE_CHECKING

from tasks.broker.channel.holding import Holding
from tasks.broker.queues.aside import read_aside
from tasks.broker.queues.lanes import FleetLanes
from tasks.broker.queues.schedule import hasten
from tasks.hardware.usage import UsageSampler
from tasks.messages.engine import Tokens
from tasks.metrics.collector import MetricsCollector
from tasks.registry.lifeline import Lifeline
from tasks.worker.attempts.accounts import Accounts
from tasks.worker.attempts.claiming import Claiming
from tasks.worker.attempts.claims import Claims
from tasks.worker.attempts.context import RunContext
from tasks.worker.attempts.endings import Endings
from tasks.worker.attempts.exclusive import Exclusive
from tasks.worker.attempts.first_tokens import FirstTokens
from tasks.worker.attempts.warmth import Warmth
from tasks.worker.cores import OneCore, available_cores
from tasks.worker.drain import Drain
from tasks.worker.engines.backlog import Backlog
from tasks.worker.engines.changes import Changes
from tasks.worker.engines.engines import Engines
from tasks.worker.engines.failures import Failures
from tasks.worker.engines.peers import RegistryPeers
from tasks.worker.heartbeat.cancels import CancelWatch
from tasks.worker.heartbeat.keeper import Keeper
from tasks.worker.heartbeat.sweep_watch import SweepWatch
from tasks.worker.links import Links
from tasks.worker.profile.slots import unrouted_warnings, urgent_slots
from tasks.worker.profile.survey import Survey
from tasks.worker.queues.lanes import Lanes
from tasks.worker.queues.queue_watch import QueueWatch
from tasks.worker.queues.room import Room
from tasks.worker.record import describe
from tasks.worker.unstarted import refuse_message

if TYPE_CHECKING:
    from celery import Celery

    from tasks.errors import GenerationError
    from tasks.messages.engine import StepOutput
    from tasks.worker.attempts.job import Job
    from tasks.worker.heartbeat.keeper import Lost
    from tasks.worker.loop import CeleryLoop
    from tasks.worker.profile.profile import Profile

logger = logging.getLogger(__name__)


class InferenceWorker:
    """The parts of one worker process, put together.

    Args:
        app: the Celery application.
        profile: the worker's name, settings and machine.
        loop: Celery's.
    """

    def __init__(self, app: Celery, profile: Profile, loop: CeleryLoop) -> None:
        settings, slots = profile.settings, profile.capacity.slots
        self.profile = profile
        self.loop = loop
        self.links = Links.of(app, profile)
        #: Warnings to the operator about the options; logged once the worker has started.
        self.warnings = (*slots.warnings, *unrouted_warnings(profile.queues, app.tasks))
        self.metrics = MetricsCollector()
        self.usage = UsageSampler(settings)
        #: The jobs whose requests are in an engine, by task id.
        self.in_engine: dict[str, Job] = {}
        self._backend = app.backend
        self._consumed = app.amqp.queues
        peers = RegistryPeers(self.links.registry, profile.identity, settings.prefill_step_tokens)
        changes = Changes()
        self.backlog = Backlog(lambda: read_aside(self.links.client), profile.queues, peers, changes)
        self.engines = Engines(profile, changes, self.backlog, self.links.publisher, self, Failures())
        most_urgent = urgent_slots(slots.total, settings.batch_share)
        self.room = Room(slots.by_queue, slots.total, self.engines.aside_lists, loop.refetch, most_urgent)
        lanes = FleetLanes(self.links.client, profile.identity, lambda: self.room.slots(self._queues_now()))
        self.lanes = Lanes(
            profile.node, lanes, lambda: not self.room.closed, has_own=settings.affinity, on_change=loop.refetch
        )
        self.claims = Claims(self.links.journal, profile.identity, app.conf.task_default_queue)
        self.holding = Holding(
            *(profile.identity, self.room, self.lanes, self.claims, self.links.scripts, refuse_message),
            journals=Endings(self.links.publisher),
        )
        self.run_context = self._make_run_context()
        self.queue_watch = QueueWatch(
            profile, self.links.client, self.room, self.holding, self._queues_now, self._running, self._on_starved
        )
        self.core = OneCore(available_cores() if settings.one_core else ())
        self.keeper = self._make_keeper()
        self.survey = Survey(profile.catalogue, self.keeper.beat_soon)
        self.drain = Drain(self.room, loop, settings.drain_timeout_s, self.keeper.beat_soon, self.engines.close)

    def _make_run_context(self) -> RunContext:
        profile, links = self.profile, self.links
        return RunContext(
            profile=profile,
            clock=links.clock,
            engines=self.engines,
            claiming=Claiming(profile, links.journal, links.publisher, self.claims),
            claims=self.claims,
            exclusive=Exclusive(),
            accounts=Accounts(self.metrics, FirstTokens(), Warmth(profile.settings, self.lanes.warm)),
            holding=self.holding,
            in_engine=self.in_engine,
        )

    def _make_keeper(self) -> Keeper:
        settings, links = self.profile.settings, self.links
        cancels = CancelWatch(links.journal, lambda: list(self.in_engine), self._cancel)
        return Keeper(
            links.registry,
            Lifeline(links.registry.client, self.profile.identity),
            partial(describe, self),
            interval_s=settings.heartbeat_s,
            dead_after_s=settings.dead_after_s,
            on_lost=self._on_lost,
            on_forgotten=links.publisher.doubt,
            after_beat=(SweepWatch().look, cancels.look, self.core.look),
        )

    def start(self) -> None:
        """Register, and start the threads in the background; once the consumer is ready.

        Raises:
            DuplicateWorker: a worker of this name is alive.
        """
        self.core.start()
        self.links.publisher.start()
        self.keeper.start()
        self.engines.start()
        self.backlog.start()
        self.queue_watch.start()
        self.lanes.start()
        self.survey.start()
        for warning in self.warnings:
            logger.warning(warning)
        for name in self.profile.settings.models:
            self.engines.keep(self.profile.catalogue.resolve(name))

    def tiers(self) -> dict[str, str]:
        """The queues of the models whose files are on this machine, for producers who know their names alone."""
        return self.survey.tiers | {str(key): queue for key, queue in self.engines.queues().items()}

    def store_failure(self, task_id: str, error: GenerationError) -> None:
        """Store the result of a request that no task ran for."""
        self._backend.mark_as_failure(task_id, error)

    def hasten(self, task_ids: list[str]) -> None:
        """Have requests that were revoked while they are scheduled end now.

        Raises:
            BrokerUnavailable: Redis cannot be reached or refuses for now.
        """
        hasten(self.links.client, task_ids)

    def _queues_now(self) -> list[str]:
        """Return the queues that this worker consumes; remote control may change them."""
        return list(self._consumed.consume_from)

    def _running(self) -> list[Job]:
        return list(self.in_engine.values())

    def _on_starved(self, message: str) -> None:
        """Requeue the running requests, and end the process with the exit status of a failure that passes."""
        logger.critical(message)
        self.room.close()
        self.drain.requeue_all()
        self.stop()
        self.loop.abort()

    def _on_lost(self, lost: Lost) -> None:
        """Others have this worker's requests, or its name: nothing of before may go on."""
        self.drain.start_over()
        if lost == "superseded":
            self.drain.leave()

    def stop(self) -> None:
        """End the engines, write the pending entries, and take the record out of the registry."""
        self.queue_watch.stop()
        self.lanes.stop()
        self.backlog.stop()
        self.engines.close()
        self.links.publisher.stop()
        self.keeper.stop()

    # The methods of an engines' Listener.

    def stepped(self, output: StepOutput) -> None:
        """Count a step's tokens while their requests still run. On the engine's reader thread."""
        for event in output.events:
            if isinstance(event, Tokens):
                self.metrics.tokens(event.task_id, len(event.ids))

    def engines_changed(self) -> None:
        """Have others know at once."""
        self.keeper.beat_soon()

    def code_replaced(self, why: str) -> None:
        """Finish the running requests, and end: only a new start loads the code that the engines have."""
        logger.critical(
            "this worker can start no engine any more, because %s: it ends once its requests are done, for its supervisor to "
            "start it again",
            why,
        )
        self.drain.leave(os.EX_TEMPFAIL)

    def aside_lists_changed(self) -> None:
        """Fetch from the aside lists that are chosen now."""
        self.loop.refetch()

    def _cancel(self, task_ids: set[str]) -> None:
        """Stop requests that carry a cancel mark, whose broadcast this worker did not hear."""
        for task_id in task_ids:
            job = self.in_engine.get(task_id)
            if job is not None:
                job.stop("cancelled")

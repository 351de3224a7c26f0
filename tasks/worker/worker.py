"""One worker: what it is, what it holds, and the sequences in which it starts, drains and ends. Knows nothing of signals."""

from __future__ import annotations

import logging
import os
import uuid
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from tasks import __version__
from tasks.broker.aside import read_aside
from tasks.broker.holding import Holding
from tasks.broker.lanes import FleetLanes
from tasks.broker.queues import more_urgent_in, waiting_in
from tasks.broker.schedule import hasten, move_due
from tasks.hardware import detect
from tasks.hardware.usage import UsageSampler
from tasks.journal.writer import Journal
from tasks.messages.engine import Tokens
from tasks.messages.registry import WorkerRecord
from tasks.metrics.collector import MetricsCollector
from tasks.models.capabilities import memory_budget_bytes
from tasks.registry import Registry
from tasks.server.clock import ServerClock, read_time
from tasks.server.connection import connect
from tasks.server.pipeline import AutoPipeline
from tasks.worker.attempts.exclusive import Exclusive
from tasks.worker.attempts.pace import Pace
from tasks.worker.attempts.publisher import Publisher
from tasks.worker.attempts.recovery import KEEP_S, Recovery
from tasks.worker.attempts.warmth import Warmth
from tasks.worker.changes import Changes
from tasks.worker.drain import GIVE_BACK_S, Drain
from tasks.worker.engines.backlog import Backlog
from tasks.worker.engines.engines import Engines
from tasks.worker.engines.failures import Failures
from tasks.worker.engines.peers import RegistryPeers
from tasks.worker.keeper import Keeper
from tasks.worker.lanes import Lanes
from tasks.worker.preemption import BATCH, Preemption
from tasks.worker.room import Room
from tasks.worker.scheduler import Scheduler
from tasks.worker.slots import slots_of, unrouted
from tasks.worker.starvation import Starvation
from tasks.worker.survey import Survey
from tasks.worker.unstarted import refuse_message
from worker_config.catalogue import current_catalogue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery import Celery

    from tasks.errors import GenerationError
    from tasks.messages.engine import StepOutput
    from tasks.messages.registry import Status
    from tasks.worker.attempts.job import Job
    from tasks.worker.celery.loop import CeleryLoop
    from tasks.worker.engines.engine import Engine
    from worker_config.settings import Settings

logger = logging.getLogger(__name__)


class InferenceWorker:
    """The parts of one worker process, put together.

    Args:
        app: the Celery application, for its broker's address.
        node: the worker's node name.
        queues: what it consumes.
        concurrency: the most requests at once that the operator allows; ``None`` for what the hardware carries.
        settings: the project's settings.
        loop: Celery's.
    """

    def __init__(
        self,
        app: Celery,
        node: str,
        queues: Sequence[str],
        concurrency: int | None,
        settings: Settings,
        loop: CeleryLoop,
    ) -> None:
        self.loop = loop
        self.settings = settings
        self.node = node
        self.boot = uuid.uuid4().hex[:12]
        self.queues = list(queues)
        self.hardware = detect(settings)
        self.catalogue = current_catalogue()
        slots = slots_of(self.hardware, self.queues, concurrency)
        limits, self.concurrency = slots.by_queue, slots.total
        #: What the operator should know about the options; logged once the worker has started.
        self.warnings = (*slots.warnings, *unrouted(self.queues, app.tasks))
        self.metrics = MetricsCollector()
        self.pace = Pace()
        self.usage = UsageSampler(settings)
        #: The jobs whose requests are in an engine, by task id.
        self.flying: dict[str, Job] = {}
        client = connect(app)
        self.clock = ServerClock(lambda: read_time(client))
        self.scripts = AutoPipeline(app)
        self.journal = Journal(client, self.scripts, ttl_s=settings.journal_ttl_s)
        self._backend = app.backend
        self.publisher = Publisher(self.journal, self.identity)
        self.exclusive = Exclusive()
        keep_s = min(KEEP_S, settings.journal_ttl_s)
        self.recovery = Recovery(self.journal, self.publisher, self.identity, keep_s=keep_s)
        registry = Registry(client)
        peers = RegistryPeers(registry, self.identity)
        self.budget_bytes = memory_budget_bytes(self.hardware)
        changes = Changes()
        self.backlog = Backlog(lambda: read_aside(client), self.queues, peers, changes)
        self.engines = Engines(
            settings,
            self.catalogue,
            self.budget_bytes,
            self.hardware.engine_accelerator,
            max(limits.values(), default=self.concurrency),
            self.publisher,
            changes,
            self.backlog,
            peers,
            Failures(),
            self._on_step,
            self._on_engines_change,
            loop.refetch,
        )
        self.room = Room(limits, self.concurrency, self.engines.lanes, loop.refetch)
        self._consumed = app.amqp.queues
        lanes = FleetLanes(client, self.identity, lambda: self.room.slots(list(self._consumed.consume_from)))
        self.lanes = Lanes(node, lanes, lambda: not self.room.closed, has_own=settings.affinity, on_change=loop.refetch)
        self.warmth = Warmth(settings, self.lanes.warm)
        self.holding = Holding(self.identity, self.room, self.lanes, self.scripts, refuse_message)
        self.starvation = Starvation(
            settings.starved_after_s, self._waiting, lambda: self.holding.received, self._on_starved
        )
        self.preemption = Preemption(
            settings.batch_share,
            lambda: list(self._consumed.consume_from),
            self.room,
            lambda: list(self.flying.values()),
            self._urgent,
        )
        self.scheduler = Scheduler(lambda: move_due(client, list(self._consumed.consume_from)))
        self.client = client
        self.keeper = Keeper(
            registry,
            self.describe,
            interval_s=settings.heartbeat_s,
            dead_after_s=settings.dead_after_s,
            active=lambda: list(self.flying),
            on_cancelled=self._cancel,
            on_lost=self._on_lost,
            on_forgotten=self.publisher.doubt,
            journal=self.journal,
        )
        self.survey = Survey(self.catalogue, self.keeper.beat_soon)
        self.drain = Drain(self.room, loop, settings.drain_timeout_s, self.keeper.beat_soon, self.engines.close)

    @property
    def identity(self) -> str:
        """``node#boot``."""
        return f"{self.node}#{self.boot}"

    def start(self) -> None:
        """Register, and start what works in the background; once the consumer is ready.

        Raises:
            DuplicateWorker: a worker of this name is alive.
        """
        self.publisher.start()
        self.keeper.start()
        self.engines.start()
        self.backlog.start()
        self.starvation.start()
        self.preemption.start()
        self.scheduler.start()
        self.lanes.start()
        self.survey.start()
        for warning in self.warnings:
            logger.warning(warning)
        for name in self.settings.models:
            self.engines.keep(self.catalogue.resolve(name))

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
        hasten(self.client, task_ids)

    def _urgent(self, queues: Sequence[str]) -> dict[str, int]:
        """Requests in these queues, and in this worker's lanes of them, that are no batch work."""
        return more_urgent_in(self.client, queues, BATCH, self.node)

    def _waiting(self) -> int:
        """Messages in the queues that this worker consumes and has room for; not those that were set aside."""
        queues = [name for name in list(self._consumed.consume_from) if self.room.has_room(name)]
        return waiting_in(self.client, queues)

    def _on_starved(self, said: str) -> None:
        """Hand back what runs, and end the process with the code of a failure that passes."""
        logger.critical(said)
        self.room.close()
        self.drain.give_back()
        self.stop()
        self.loop.abort()

    def _on_lost(self, how: str) -> None:
        """Others have this worker's requests, or its name: nothing of before may go on."""
        self.loop.give_back()
        while not self.room.wait_idle(GIVE_BACK_S):
            logger.warning("requests of before are still being stopped: %s", self.room.busy())
        if how == "superseded":
            self.drain.leave()

    def stop(self) -> None:
        """End the engines, write what is left, and take the record out of the registry."""
        self.starvation.stop()
        self.preemption.stop()
        self.scheduler.stop()
        self.lanes.stop()
        self.backlog.stop()
        self.engines.close()
        self.publisher.stop()
        self.keeper.stop()

    def describe(self) -> WorkerRecord:
        """The record as it is now."""
        metrics = self.metrics.snapshot()
        rates = {model: each["tokens_per_s"] for model, each in metrics["models"].items()}
        states = [replace(state, tokens_per_s=rates.get(state.model, 0.0)) for state in self.engines.states()]
        status, reason = self._status()
        return WorkerRecord(
            node=self.node,
            boot=self.boot,
            status=status,
            reason=reason,
            pid=os.getpid(),
            version=__version__,
            concurrency=self.concurrency,
            queues=self.queues,
            slots=dict(self.room.limits),
            busy=self.room.busy(),
            paused=self.room.closed,
            models=[state.model for state in states if state.state == "ready"],
            unknown_models=list(self.engines.unknown),
            tiers=self.tiers(),
            engines=states,
            engine_restarts=self.engines.restarts,
            budget_bytes=self.budget_bytes,
            room_bytes=self.engines.room_bytes,
            hardware=asdict(self.hardware),
            usage=asdict(self.usage.sample(self.engines.pids(), self.engines.last_steps())),
            metrics={**metrics, "lanes": self.lanes.counts()},
        )

    def _status(self) -> tuple[Status, str]:
        if self.drain.reason:
            return "draining", self.drain.reason
        degraded = self.engines.degraded()
        if degraded:
            return "degraded", degraded
        if self.engines.loading:
            return "starting", "loading a model"
        return "online", ""

    def _on_step(self, _engine: Engine, output: StepOutput) -> None:
        """Count a step's tokens while their requests still run. On the engine's reader thread."""
        for event in output.events:
            if isinstance(event, Tokens):
                self.metrics.tokens(event.task_id, len(event.ids))

    def _on_engines_change(self) -> None:
        self.keeper.beat_soon()

    def _cancel(self, task_ids: set[str]) -> None:
        """Requests that carry a cancel mark, whose broadcast this worker did not hear."""
        for task_id in task_ids:
            job = self.flying.get(task_id)
            if job is not None:
                job.stop("cancelled")

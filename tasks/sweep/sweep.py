"""The sweep's thread: elects one among several beats, buries dead workers, gives back what they held, finds lost messages."""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol, Self

from tasks.broker import lanes, unacked
from tasks.broker.ledger import RESENT_MAX, Ledger
from tasks.broker.limits import limits_of, write_limits
from tasks.broker.purge import end_purged
from tasks.errors import BrokerUnavailable, GenerationError
from tasks.journal.writer import Journal
from tasks.messages.journal import Error
from tasks.registry import Grace, Registry, scripts
from tasks.registry.lifeline import Lifeline
from tasks.registry.registry import SWEPT_TTL_S
from tasks.registry.values import json_object, number, text
from tasks.server import keys
from tasks.server.connection import connect, translated
from tasks.sweep.results import Results
from tasks.sweep.watch import FleetWatch, Look, Seen, Verdict
from worker_config.celeryconfig import settings_of

if TYPE_CHECKING:
    import redis
    from celery import Celery

    from tasks.messages.journal import End
    from worker_config.settings import Settings

logger = logging.getLogger(__name__)

#: How often the ledger is looked through.
LEDGER_INTERVAL_S = 2.0
#: The lock outlives this many rounds, and at least this long: a beat that is busy for a moment keeps it.
LOCK_ROUNDS = 6
LOCK_AT_LEAST_S = 3.0
RECONNECT_S = 1.0


class FinalResults(Protocol):
    """Where a request's result is final although its journal is open; see :class:`tasks.sweep.results.Results`."""

    def final_entry(self, task_id: str) -> End | Error | None:
        """The entry that the journal should end with."""

    def fail(self, task_id: str, error: Exception) -> None:
        """Make this the request's result."""

    def revoke(self, task_id: str, message: str) -> None:
        """Make it the request's result that it was revoked."""


class Sweep(threading.Thread):
    """Looks at the fleet every ``sweep_s`` seconds, while it holds the lock. Every step may be done by two at once.

    Args:
        client: answers in bytes; where the fleet is.
        results: the requests' Celery results.
        journal: the requests' journals.
        settings: the interval of the looks, how long a worker is silent that is dead, and the queues' limits.
        name: whose sweep this is, for people.
        grace: how long absences are not believed.
        ledger: finds lost requests.
        ledger_s: how often the ledger is looked through.
    """

    def __init__(
        self,
        client: redis.Redis,
        results: FinalResults,
        journal: Journal,
        settings: Settings,
        name: str = "",
        *,
        grace: Grace = Grace(),  # noqa: B008  (it is frozen)
        ledger: Ledger | None = None,
        ledger_s: float = LEDGER_INTERVAL_S,
    ) -> None:
        self.by = name or f"{socket.gethostname()}:{os.getpid()}:{random.randrange(16**6):06x}"
        super().__init__(name="celery-mlx-sweep", daemon=True)
        self._client = client
        self._lifeline = Lifeline(client, f"sweep@{self.by}")
        self._registry = Registry(client, grace)
        self._ledger = ledger or Ledger(client, time.monotonic)
        self._ledger_s = ledger_s
        self._results = results
        self._journal = journal
        self._settings = settings
        self._grace = grace
        self._watch = self._new_watch()
        self._stopping = threading.Event()
        self._parsed: dict[bytes, tuple[bytes, Seen | None]] = {}
        self._ledger_at = 0.0
        self._elect = client.register_script(scripts.source("elect"))
        self._condemn = client.register_script(scripts.source("condemn"))

    @classmethod
    def of(cls, app: Celery) -> Self:
        """The sweep of this app's fleet."""
        client = connect(app)
        return cls(client, Results(app), Journal(client), settings_of(app))

    def run(self) -> None:
        """Sweep until :meth:`stop`; Redis may come and go meanwhile."""
        logger.info("sweep: started, every %g s", self._settings.sweep_s)
        away = False
        while not self._stopping.is_set():
            started = time.monotonic()
            wait_s = self._settings.sweep_s
            try:
                self.round()
                away = False
            except BrokerUnavailable as error:
                self._watch.disturbed(time.monotonic())
                self._lifeline.close()
                wait_s = RECONNECT_S * random.uniform(0.5, 1.0)
                if not away:
                    logger.warning("sweep: %s; trying again until Redis is back", error)
                away = True
            except Exception:
                # A thread that ends sweeps nothing any more.
                logger.exception("sweep: a round failed")
            self._stopping.wait(max(0.0, wait_s - (time.monotonic() - started)))
        self._resign()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the thread and give the lock to others."""
        self._stopping.set()
        if self.is_alive():
            self.join(timeout_s)

    def round(self) -> None:
        """One look, and what follows from it. Does nothing while another beat holds the lock.

        Raises:
            BrokerUnavailable: Redis cannot be reached or refuses for now.
        """
        if not self._elected():
            self._watch = self._new_watch()
            return
        look = self._look()
        dead = {verdict.worker.identity for verdict in self._watch.verdicts(look) if self._declare_dead(verdict)}
        if self._watch.believes_leases(look.at):
            self._return_work({worker.identity for worker in look.workers} - dead)
        if look.at >= self._ledger_at:
            self._ledger_at = look.at + self._ledger_s
            self._send_again()
            write_limits(self._client, limits_of(self._registry.records(), self._settings))
        self._sign(look.now)

    def _new_watch(self) -> FleetWatch:
        return FleetWatch(self._settings.dead_after_s, self._grace)

    def _elected(self) -> bool:
        # On a connection that never reconnects unseen: whoever loses it must not believe in absences for a while.
        client = self._lifeline.connect()
        lock_s = max(LOCK_AT_LEAST_S, LOCK_ROUNDS * self._settings.sweep_s)
        with translated("electing a sweep"):
            return bool(self._elect([keys.SWEEP_LOCK], [self.by, int(lock_s * 1000)], client))

    def _resign(self) -> None:
        try:
            with translated("giving back the sweep's lock"):
                self._elect([keys.SWEEP_LOCK], [self.by, 0])
        except BrokerUnavailable:
            logger.info("sweep: Redis is away, the lock expires")
        self._lifeline.close()

    def _look(self) -> Look:
        with translated("looking at the fleet"):
            seconds, microseconds = self._client.time()
            at = time.monotonic()
            stored: Any = self._client.hgetall(keys.WORKERS)
        self._parsed = {node: self._parse(node, payload) for node, payload in stored.items()}
        workers = [worker for _, worker in self._parsed.values() if worker is not None]
        leases = self._registry.leases([seen.identity for seen in workers])
        connections = self._registry.connections(leases)
        workers = [Seen(seen.node, seen.boot, seen.beat_at, leases.get(seen.identity)) for seen in workers]
        return Look(at, seconds + microseconds / 1e6, workers, connections)

    def _parse(self, node: bytes, payload: bytes) -> tuple[bytes, Seen | None]:
        """What matters of a record of any version; a record is parsed once for each beat, not for each look."""
        known = self._parsed.get(node)
        if known is not None and known[0] == payload:
            return known
        record = json_object(payload)
        boot, beat_at = record.get("boot"), number(record.get("beat_at"))
        if not isinstance(boot, str) or beat_at is None:
            return payload, None
        return payload, Seen(text(node), boot, beat_at, None)

    def _declare_dead(self, verdict: Verdict) -> bool:
        worker = verdict.worker
        dead = self._registry.declare_dead(worker.node, worker.boot, lease=worker.lease or "", reason=verdict.reason)
        if dead:
            lanes.leave(self._client, worker.node)
            logger.warning("sweep: worker %s is dead: %s", worker.identity, verdict.reason)
        return dead

    def _return_work(self, living: set[str]) -> None:
        """Restore what every worker holds that is not there any more: dead, superseded, or gone without a word."""
        with translated("looking for owners of messages"):
            owners: Any = self._client.smembers(keys.OWNERS)
        for identity in sorted({text(owner) for owner in owners} - living):
            with translated(f"sweeping {identity}"):
                gone = self._condemn([keys.alive(identity), keys.swept(identity)], [SWEPT_TTL_S])
            if gone:
                self._restore(identity)

    def _restore(self, identity: str) -> None:
        for held in unacked.held(self._client, identity):
            self._end_if_final(held.task_id)
        restored = unacked.restore(self._client, identity)
        if restored:
            logger.warning("sweep: gave back %d requests of %s: %s", len(restored), identity, ", ".join(restored))
        with translated(f"forgetting {identity}"):
            if not self._client.exists(keys.unacked(identity)):
                self._client.srem(keys.OWNERS, identity)

    def _end_if_final(self, task_id: str) -> bool:
        """End the journal of a request that Celery has ended without the worker: revoked, expired, over its hard time limit."""
        entry = self._results.final_entry(task_id) if task_id else None
        if entry is None:
            return False
        return self._journal.end_unclaimed(task_id, entry) != "busy"

    def _send_again(self) -> None:
        for lost in self._ledger.lost():
            if lost.purged:
                end_purged(self._journal, self._results.revoke, lost.task_id, lost.message)
                self._ledger.give_up(lost)
            elif self._end_if_final(lost.task_id):
                self._ledger.give_up(lost)
            elif lost.resent >= RESENT_MAX:
                self._give_up(lost.task_id)
                self._ledger.give_up(lost)
            elif self._ledger.resend(lost):
                logger.warning("sweep: request %s was in no queue and with no worker: sent again", lost.task_id)

    def _give_up(self, task_id: str) -> None:
        error = GenerationError(f"lost {RESENT_MAX} times on its way to a worker: see the workers' logs")
        entry = Error(attempt=0, code=error.code, message=str(error), retryable=error.retryable)
        if self._journal.end_unclaimed(task_id, entry) == "ended":
            self._results.fail(task_id, error)
            logger.error("sweep: request %s: %s", task_id, error)

    def _sign(self, now: float) -> None:
        with translated("signing the sweep"):
            self._client.hset(keys.SWEEP, mapping={"at": f"{now:.6f}", "by": self.by})

"""The sweep's thread: round after round it finds dead workers and lost requests, and gives the work to others."""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
import time
from typing import TYPE_CHECKING, Self

from tasks.broker.queues import lanes
from tasks.broker.queues.ledger import Ledger
from tasks.broker.queues.limits import limits_of, write_limits
from tasks.errors import BrokerUnavailable
from tasks.journal.writer import Journal
from tasks.registry import Grace, Registry
from tasks.server import keys
from tasks.server.connection import connect, translated
from tasks.sweep.election import Election
from tasks.sweep.ends import Ends
from tasks.sweep.lost import LostRequests
from tasks.sweep.reader import FleetReader
from tasks.sweep.results import Results
from tasks.sweep.returns import Returns
from tasks.sweep.watch import FleetWatch, Verdict
from worker_config.celeryconfig import settings_of

if TYPE_CHECKING:
    import redis
    from celery import Celery

    from worker_config.settings import Settings

logger = logging.getLogger(__name__)

#: How often lost requests are looked for, and the queues' limits are written.
CHORES_S = 2.0
RECONNECT_S = 1.0


class Sweep(threading.Thread):
    """Looks at the fleet every ``sweep_s`` seconds, while it holds the lock. Every step may be done by two at once.

    Args:
        client: answers in bytes; where the fleet is.
        ends: writes ends of requests that no worker ends.
        settings: the interval of the looks, how long a worker is silent that is dead, and the queues' limits.
        name: whose sweep this is, for people.
        grace: how long absences are not believed.
        lost: finds lost requests.
        chores_s: how often those are looked for.
    """

    def __init__(
        self,
        client: redis.Redis,
        ends: Ends,
        settings: Settings,
        name: str = "",
        *,
        grace: Grace = Grace(),  # noqa: B008  (it is frozen)
        lost: LostRequests | None = None,
        chores_s: float = CHORES_S,
    ) -> None:
        self.by = name or f"{socket.gethostname()}:{os.getpid()}:{random.randrange(16**6):06x}"
        super().__init__(name="celery-mlx-sweep", daemon=True)
        self._client = client
        self._settings = settings
        self._grace = grace
        self._chores_s = chores_s
        self._chores_at = 0.0
        self._election = Election(client, self.by, settings.sweep_s)
        self._registry = Registry(client, grace)
        self._reader = FleetReader(client, self._registry)
        self._returns = Returns(client, ends)
        self._lost = lost or LostRequests(Ledger(client, time.monotonic), ends)
        #: Judges which workers are dead.
        self.watch = self._new_watch()
        self._stopping = threading.Event()

    @classmethod
    def of(cls, app: Celery) -> Self:
        """The sweep of this app's fleet."""
        client = connect(app)
        return cls(client, Ends(Journal(client), Results(app)), settings_of(app))

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
                self.watch.disturbed(time.monotonic())
                self._election.close()
                wait_s = RECONNECT_S * random.uniform(0.5, 1.0)
                if not away:
                    logger.warning("sweep: %s; trying again until Redis is back", error)
                away = True
            except Exception:
                # Never let this thread die: without it nobody takes over from a dead worker.
                logger.exception("sweep: a round failed")
            self._stopping.wait(max(0.0, wait_s - (time.monotonic() - started)))
        self._election.resign()

    def stop(self, timeout_s: float = 5.0) -> None:
        """End the thread and give the lock to others."""
        self._stopping.set()
        if self.is_alive():
            self.join(timeout_s)
        else:
            self._election.close()

    def round(self) -> None:
        """Look at the fleet once, and act on it. Does nothing while another beat holds the lock.

        Raises:
            BrokerUnavailable: Redis cannot be reached or refuses for now.
        """
        if not self._election.held():
            self.watch = self._new_watch()
            return
        look = self._reader.look()
        dead = {verdict.worker.identity for verdict in self.watch.verdicts(look) if self._declare_dead(verdict)}
        if self.watch.believes_leases(look.at):
            self._returns.return_work({worker.identity for worker in look.workers} - dead)
        if look.at >= self._chores_at:
            self._chores_at = look.at + self._chores_s
            self._lost.look()
            write_limits(self._client, limits_of(self._registry.records(), self._settings))
        self._sign(look.now)

    def _new_watch(self) -> FleetWatch:
        return FleetWatch(self._settings.dead_after_s, self._grace)

    def _declare_dead(self, verdict: Verdict) -> bool:
        worker = verdict.worker
        dead = self._registry.declare_dead(worker.node, worker.boot, lease=worker.lease or "", reason=verdict.reason)
        if dead:
            lanes.leave(self._client, worker.node)
            logger.warning("sweep: worker %s is dead: %s", worker.identity, verdict.reason)
        return dead

    def _sign(self, now: float) -> None:
        with translated("signing the sweep"):
            self._client.hset(keys.SWEEP, mapping={"at": f"{now:.6f}", "by": self.by})

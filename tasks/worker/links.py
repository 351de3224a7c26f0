"""A worker's ways to Redis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.journal.writer import Journal
from tasks.registry import Registry
from tasks.server.clock import ServerClock, read_time
from tasks.server.connection import connect
from tasks.server.pipeline import AutoPipeline
from tasks.worker.attempts.publisher import Publisher
from tasks.worker.attempts.recovery import KEEP_S, Recovery

if TYPE_CHECKING:
    from celery import Celery

    from tasks.worker.profile.profile import Profile


@dataclass(frozen=True, slots=True)
class Links:
    """The connections that a worker's parts share, and the objects that write and read through them.

    Args:
        client: for single commands.
        clock: Redis's time.
        scripts: runs scripts, many in one round trip.
        journal: the journals of requests.
        registry: the records of workers.
        publisher: writes the engines' events into journals.
        recovery: finds this worker's requests again when Redis comes back older than it was.
    """

    client: Any
    clock: ServerClock
    scripts: AutoPipeline
    journal: Journal
    registry: Registry
    publisher: Publisher
    recovery: Recovery

    @classmethod
    def of(cls, app: Celery, profile: Profile) -> Links:
        """The links to the Redis of this application. Nothing is sent before the first command."""
        client, scripts, ttl_s = connect(app), AutoPipeline(app), profile.settings.journal_ttl_s
        journal = Journal(client, scripts, ttl_s=ttl_s)
        publisher = Publisher(journal, profile.identity)
        result_key = getattr(app.backend, "get_key_for_task", str)  # an application may store no results
        recovery = Recovery(journal, publisher, profile.identity, result_key, keep_s=min(KEEP_S, ttl_s))
        clock = ServerClock(lambda: read_time(client))
        return cls(client, clock, scripts, journal, Registry(client), publisher, recovery)

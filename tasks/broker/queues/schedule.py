"""Messages whose time has not come (``countdown``, ``eta``).

Celery fetches such a message at once and holds it. One idle worker would take all of them, and run them beyond its slots when
they are due. Here they wait in Redis, in a sorted set for each queue. Producers put requests there. A worker that fetches such
a message (from another client, or of another task) puts it there as well. Every worker queues what is due
(:class:`tasks.worker.queues.scheduler.Scheduler`). Every time is Redis's clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tasks.broker import scripts
from tasks.broker.queues.queues import SEPARATOR
from tasks.broker.queues.references import with_references
from tasks.server import keys
from tasks.server.connection import translated
from tasks.server.script import Script

if TYPE_CHECKING:
    from collections.abc import Iterable

    import redis

    from tasks.server.script import Evaluator

DUE = Script(scripts.source("due"))
HASTEN = Script(with_references("hasten"))
POSTPONE = Script(with_references("postpone"))
#: The bounds of one call of a script.
PAGE = 100


@dataclass(slots=True, frozen=True)
class Moved:
    """The number of messages queued, and the seconds until the next one is due; ``None`` if none is scheduled."""

    count: int
    next_s: float | None


def due_at(headers: dict[str, Any]) -> float | None:
    """Return when a message is due, in Unix seconds; ``None`` if it names no time, or none that can be read."""
    try:
        eta = datetime.fromisoformat(headers["eta"])
    except (KeyError, TypeError, ValueError):
        return None
    return (eta if eta.tzinfo is not None else eta.replace(tzinfo=UTC)).timestamp()


def move_due(client: Evaluator, queues: Iterable[str]) -> Moved:
    """Queue the due messages of these queues.

    Raises:
        BrokerUnavailable: Redis cannot be reached or refuses for now.
    """
    names = [keys.scheduled(queue) for queue in queues]
    if not names:
        return Moved(0, None)
    with translated("queueing what is due"):
        count, next_ms = DUE(client, names, (PAGE,))
    return Moved(int(count), int(next_ms) / 1000 if next_ms else None)


def hasten(client: redis.Redis, task_ids: list[str]) -> None:
    """Make requests due that were cancelled while they are scheduled, so that a worker ends them now.

    Raises:
        BrokerUnavailable: Redis cannot be reached or refuses for now.
    """
    for start in range(0, len(task_ids), PAGE):
        with translated("queueing what was cancelled"):
            HASTEN(client, (keys.LEDGER,), (keys.scheduled(""), SEPARATOR, *task_ids[start : start + PAGE]))

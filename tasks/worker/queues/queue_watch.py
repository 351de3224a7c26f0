"""The threads that look at the queues which a worker consumes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.broker.queues.queues import more_urgent_in, waiting_in
from tasks.broker.queues.schedule import move_due
from tasks.worker.attempts.job import BATCH
from tasks.worker.queues.preemption import Preemption
from tasks.worker.queues.scheduler import Scheduler
from tasks.worker.queues.starvation import Starvation

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from tasks.broker.channel.holding import Holding
    from tasks.worker.attempts.job import Job
    from tasks.worker.profile.profile import Profile
    from tasks.worker.queues.room import Room


class QueueWatch:
    """Starvation, preemption and the scheduler, over one set of queues.

    Args:
        profile: the worker's settings and name.
        client: reads Redis.
        room: its slots.
        holding: the messages that it has received.
        consumed: the queues that it consumes now.
        running: the jobs whose requests are in an engine.
        on_starved: called once, with a message, if the worker no longer fetches.
    """

    def __init__(
        self,
        profile: Profile,
        client: Any,
        room: Room,
        holding: Holding,
        consumed: Callable[[], list[str]],
        running: Callable[[], Collection[Job]],
        on_starved: Callable[[str], None],
    ) -> None:
        self._client = client
        self._node = profile.node
        self._room = room
        self._consumed = consumed
        settings = profile.settings
        self._threads = (
            Starvation(settings.starved_after_s, self._waiting, lambda: holding.received, on_starved),
            Preemption(settings.batch_share, consumed, room, running, self._urgent),
            Scheduler(lambda: move_due(client, consumed())),
        )

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End them; one of them may be the caller."""
        for thread in self._threads:
            thread.stop()

    def _waiting(self) -> int:
        """Messages in the queues that this worker consumes and has room for; not those that were set aside."""
        return waiting_in(self._client, [name for name in self._consumed() if self._room.has_room(name)])

    def _urgent(self, queues: Sequence[str]) -> dict[str, int]:
        """Requests in these queues, and in this worker's lanes of them, that are no batch work."""
        return more_urgent_in(self._client, queues, BATCH, self._node)

"""The requests that were set aside for their models, as this worker knows them. Times are monotonic seconds."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.errors import BrokerUnavailable
from tasks.models.key import EngineKey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tasks.broker.queues.aside import Aside
    from tasks.worker.engines.changes import Changes
    from tasks.worker.engines.peers import Peers

logger = logging.getLogger(__name__)

LOOK_S = 1.0
#: A request that this worker set aside may not be in Redis yet.
NOTED_S = 2.0


@dataclass(slots=True, frozen=True)
class Waiting:
    """An aside list: requests of one queue that wait for one engine, since the first of them was set aside."""

    queue: str
    key: EngineKey
    since: float


class Backlog(threading.Thread):
    """Looks into Redis every :data:`LOOK_S`, and remembers the requests that this worker itself sets aside.

    Args:
        read: reads the aside lists of all queues.
        queues: those that this worker serves; the others are not its business.
        peers: the other workers; asked to look too, while there is anything.
        changes: where it is noted that something came or went.
    """

    def __init__(
        self,
        read: Callable[[], Iterable[Aside]],
        queues: Iterable[str],
        peers: Peers,
        changes: Changes,
        noted_s: float = NOTED_S,
    ) -> None:
        super().__init__(name="backlog", daemon=True)
        self._read = read
        self.queues = frozenset(queues)
        #: The workers that may take requests that this one cannot run.
        self.peers = peers
        self._changes = changes
        self._noted_s = noted_s
        self._lock = threading.Lock()
        self._since: dict[tuple[str, EngineKey], float] = {}
        self._noted: dict[tuple[str, EngineKey], float] = {}
        self._ending = threading.Event()

    def run(self) -> None:
        """Look until :meth:`stop`."""
        while not self._ending.wait(LOOK_S):
            try:
                self.look()
            except Exception:
                # Never let this thread die: without it no request leaves its aside list.
                logger.exception("a look at the aside lists failed")

    def stop(self) -> None:
        """End the thread."""
        self._ending.set()
        if self.is_alive():
            self.join()

    def note(self, queue: str, key: EngineKey) -> None:
        """This worker sets a request aside."""
        with self._lock:
            self._noted[queue, key] = time.monotonic()

    def waiting(self) -> list[Waiting]:
        """The aside lists that are not empty, the longest waiting first."""
        with self._lock:
            merged = {**self._noted, **self._since}
        return sorted(
            (Waiting(queue, key, since) for (queue, key), since in merged.items()), key=lambda waiting: waiting.since
        )

    def look(self) -> None:
        """Read the aside lists now."""
        started = time.monotonic()
        try:
            found = list(self._read())
        except BrokerUnavailable as error:
            logger.debug("the aside lists could not be read: %s", error)
            return
        since: dict[tuple[str, EngineKey], float] = {}
        for aside in found:
            if aside.queue in self.queues:
                place = aside.queue, EngineKey(aside.model)
                since[place] = min(since.get(place, started), started - aside.age_s)
        if since:
            self.peers.look()
        with self._lock:
            before = self._since.keys() | self._noted.keys()
            self._noted = {place: at for place, at in self._noted.items() if started - at < self._noted_s}
            self._since = since
            changed = before != self._since.keys() | self._noted.keys()
        if changed:
            with self._changes:
                self._changes.notify()

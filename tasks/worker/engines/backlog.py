"""What was set aside for models that were not loaded, as this worker knows it. Times are monotonic seconds."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.errors import BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tasks.broker.aside import Aside
    from tasks.worker.engines.peers import Others

logger = logging.getLogger(__name__)

LOOK_S = 1.0
#: What this worker has just set aside may not be in Redis yet.
NOTED_S = 2.0


@dataclass(slots=True, frozen=True)
class Waiting:
    """Requests of one queue that wait for one model, since the first of them was set aside."""

    queue: str
    model: str
    since: float


class Backlog(threading.Thread):
    """Looks into Redis every :data:`LOOK_S`, and remembers what this worker itself sets aside.

    Args:
        read: what is set aside in all queues.
        queues: those that this worker serves; the others are not its business.
        others: asked to look too, while there is anything.
        on_change: called, on this thread, when something came or went.
    """

    def __init__(
        self,
        read: Callable[[], Iterable[Aside]],
        queues: Iterable[str],
        others: Others,
        on_change: Callable[[], None],
    ) -> None:
        super().__init__(name="backlog", daemon=True)
        self._read = read
        self._queues = frozenset(queues)
        self._others = others
        self._on_change = on_change
        self._lock = threading.Lock()
        self._since: dict[tuple[str, str], float] = {}
        self._noted: dict[tuple[str, str], float] = {}
        self._ending = threading.Event()

    def run(self) -> None:
        """Look until :meth:`stop`."""
        while not self._ending.wait(LOOK_S):
            self.look()

    def stop(self) -> None:
        """End the thread."""
        self._ending.set()
        if self.is_alive():
            self.join()

    def note(self, queue: str, model: str) -> None:
        """This worker sets a request aside."""
        with self._lock:
            self._noted[queue, model] = time.monotonic()

    def waiting(self) -> list[Waiting]:
        """What is set aside, the longest waiting first."""
        with self._lock:
            merged = {**self._noted, **self._since}
        return sorted((Waiting(*each, since) for each, since in merged.items()), key=lambda waiting: waiting.since)

    def look(self) -> None:
        """Read what is set aside now."""
        started = time.monotonic()
        try:
            found = list(self._read())
        except BrokerUnavailable as error:
            logger.debug("what was set aside could not be read: %s", error)
            return
        since: dict[tuple[str, str], float] = {}
        for each in found:
            if each.queue in self._queues:
                key = (each.queue, each.model)
                since[key] = min(since.get(key, started), started - each.age_s)
        if since:
            self._others.look()
        with self._lock:
            before = self._since.keys() | self._noted.keys()
            self._noted = {key: at for key, at in self._noted.items() if started - at < NOTED_S}
            self._since = since
            changed = before != self._since.keys() | self._noted.keys()
        if changed:
            self._on_change()

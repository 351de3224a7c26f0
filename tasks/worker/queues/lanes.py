"""Chooses the lanes that this worker takes requests from, and their order (:mod:`tasks.broker.queues.lanes`)."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Protocol

from tasks.broker.queues.lanes import SERVE_S
from tasks.broker.queues.queues import lane_of, list_of, node_of
from tasks.errors import BrokerUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from tasks.broker.queues.lanes import Head

logger = logging.getLogger(__name__)

#: The longest that a request may be everybody's before this worker sees it.
LOOK_S = 0.25
#: Prompts that begin within this time are noted in one call.
NOTE_S = 0.02


class Fleet(Protocol):
    """The calls to Redis that the lanes need."""

    def heads(self) -> Iterable[Head]:
        """The next requests of all lanes of the queues that this worker consumes."""

    def serve(self) -> None:
        """Say that this worker takes requests from its lanes."""

    def leave(self) -> None:
        """Say that it does so no more."""

    def note_warm(self, waits_ms: Mapping[str, int]) -> None:
        """Say which beginnings of prompts are warm here."""


class Lanes(threading.Thread):
    """Looks at the lanes of all workers every quarter of a second, and when a request becomes everybody's.

    Args:
        node: this worker.
        fleet: where lanes are.
        is_open: whether this worker takes requests now.
        has_own: whether it has lanes of its own; lanes of others it empties anyway.
        on_change: called when other lists are taken from than before.
        look_s: the time between two looks.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        node: str,
        fleet: Fleet,
        is_open: Callable[[], bool],
        *,
        has_own: bool = True,
        on_change: Callable[[], None] = lambda: None,
        look_s: float = LOOK_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name="lanes", daemon=True)
        self._node = node
        self._fleet = fleet
        self._is_open = is_open
        self._has_own = has_own
        self._on_change = on_change
        self._look_s = look_s
        self._clock = clock
        self._ranks: dict[str, float] = {}
        self._taken: Counter[str] = Counter()
        self._waits_ms: dict[str, int] = {}
        self._waiting = 0
        self._serve_at = 0.0
        self._serves = False
        self._is_stale = False
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._ending = False

    def run(self) -> None:
        """Look, and note warm prompts between two looks, until :meth:`stop`."""
        while not self._ending:
            look_at = self._clock() + self._look_safely()
            while not (self._is_stale or self._ending) and (left_s := look_at - self._clock()) > 0:
                self._wait(left_s)
                if self._waits_ms:
                    self._wait(NOTE_S)
                    self._safely(self._note)
        self._safely(self._fleet.leave)

    def _wait(self, seconds: float) -> None:
        self._wake.wait(seconds)
        self._wake.clear()

    def stop(self) -> None:
        """End the thread; this worker has no lanes any more."""
        self._ending = True
        self._wake.set()
        if self.is_alive():
            self.join()

    def beside(self, queue: str, priority: int, *, own: bool = False) -> tuple[list[str], list[str]]:
        """The lanes to take from before and after a queue's own list of one priority.

        Args:
            queue: the queue.
            priority: the priority.
            own: whether lanes of others are left out.
        """
        ranks = self._ranks
        if not ranks:  # as it nearly always is
            return [lane_of(queue, priority, self._node)] if self._has_own else [], []
        common, mine = list_of(queue, priority), lane_of(queue, priority, self._node)
        lane = lane_of(queue, priority)
        names = [name for name in ranks if name.startswith(lane) and name != mine and not own]
        if self._has_own:
            names.append(mine)
        # Requests that came into this worker's lane since the last look are taken at once.
        names.sort(key=lambda name: ranks.get(name, float("-inf")))
        first = [name for name in names if ranks.get(name, float("-inf")) <= ranks.get(common, float("inf"))]
        return first, names[len(first) :]

    def took(self, list_name: str) -> None:
        """A request was taken from this list; the next one in a lane of another worker may not be everybody's yet."""
        node = node_of(list_name)
        if not node:
            return
        with self._lock:
            self._taken["hits" if node == self._node else "steals"] += 1
        if node != self._node:
            self._ranks = {name: rank for name, rank in self._ranks.items() if name != list_name}
            self._is_stale = True
            self._wake.set()

    def warm(self, waits_ms: Mapping[str, int]) -> None:
        """Prompts that begin like this are computed here: by digest, for how many ms a request is worth waiting for it."""
        if waits_ms and self._has_own:
            with self._lock:
                is_first = not self._waits_ms
                self._waits_ms.update(waits_ms)
            if is_first:
                self._wake.set()

    def counts(self) -> dict[str, int]:
        """Count requests taken since the start from its lanes (``hits``) and others' (``steals``), and those that wait here."""
        with self._lock:
            return {"hits": self._taken["hits"], "steals": self._taken["steals"], "waiting": self._waiting}

    def look(self) -> float:
        """Look once; the time until the next look.

        Raises:
            BrokerUnavailable: Redis cannot be reached or refuses for now.
        """
        self._is_stale = False
        self._note()
        self._announce()
        now = self._clock()
        ranks: dict[str, float] = {}
        waiting = 0
        next_s = self._look_s
        for head in self._fleet.heads():
            mine = head.node == self._node
            waiting += head.length if mine else 0
            wait_s = 0.0 if mine else head.wait_s
            if head.age_s >= wait_s:
                ranks[head.list_name] = now - head.age_s + wait_s
            else:
                next_s = min(next_s, wait_s - head.age_s)
        changed = ranks.keys() != self._ranks.keys()
        self._ranks, self._waiting = ranks, waiting
        if changed:
            self._on_change()
        return next_s

    def _note(self) -> None:
        """Note the prompts that have become warm here since the last note."""
        with self._lock:
            waits_ms, self._waits_ms = self._waits_ms, {}
        if waits_ms:
            self._fleet.note_warm(waits_ms)

    def _announce(self) -> None:
        """Say that there are lanes here, or, while the worker takes nothing, that there are none."""
        now = self._clock()
        if not (self._has_own and self._is_open()):
            if self._serves:
                self._fleet.leave()
            self._serves = False
        elif not self._serves or now >= self._serve_at:
            self._fleet.serve()
            self._serves, self._serve_at = True, now + SERVE_S

    def _look_safely(self) -> float:
        return self._safely(self.look) or self._look_s

    def _safely(self, call: Callable[[], float | None]) -> float | None:
        """Never let this thread die: without it no request leaves the lane of a dead worker."""
        try:
            return call()
        except BrokerUnavailable as error:
            logger.debug("the lanes cannot be reached: %s", error)
        except Exception:
            logger.exception("the lanes failed")
        return None

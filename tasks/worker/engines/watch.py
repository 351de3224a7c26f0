"""The watch over a worker's engines: it looks at them, and at the requests that wait for them, after every change."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from tasks.worker.engines.turns import Lanes
from tasks.worker.engines.waiting import WAIT_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.worker.engines.changes import Changes
    from tasks.worker.engines.demand import Demand
    from tasks.worker.engines.upkeep import Upkeep

logger = logging.getLogger(__name__)

#: Changes within this time are looked at together.
DEBOUNCE_S = 0.02


class EngineWatch(threading.Thread):
    """Looks after every change, and every :data:`tasks.worker.engines.waiting.WAIT_S`.

    Args:
        changes: the worker's lock.
        upkeep: says which engines need an action.
        demand: the models that requests wait for.
        on_lanes: called when :meth:`lanes` has another answer; on this thread.
    """

    def __init__(self, changes: Changes, upkeep: Upkeep, demand: Demand, on_lanes: Callable[[], None]) -> None:
        super().__init__(name="engines", daemon=True)
        self._changes = changes
        self._upkeep = upkeep
        self._demand = demand
        self._on_lanes = on_lanes
        self._lanes: dict[str, Lanes] = {}
        self._ending = threading.Event()

    def run(self) -> None:
        """Look until :meth:`stop`."""
        while not self._ending.wait(DEBOUNCE_S):
            with self._changes:
                seen = self._changes.count
            try:
                self.look(time.monotonic())
            except Exception:
                # Never let this thread die: without it no engine is replaced and no model gets its turn.
                logger.exception("a look at the engines failed")
            self._changes.wait_for_change(seen, WAIT_S)

    def stop(self) -> None:
        """End the thread."""
        self._ending.set()
        with self._changes:
            self._changes.notify()
        if self.is_alive():
            self.join()

    def lanes(self, queue: str) -> Lanes:
        """The lanes of this queue that requests are taken from now. Never waits."""
        return self._lanes.get(queue) or Lanes([], [])

    def look(self, now: float) -> None:
        """Run the actions that are due, and choose the lanes."""
        look = self._demand.look()
        with self._changes.deciding() as actions:
            actions.extend(self._upkeep.due(now))
            lanes = self._demand.answer(look, now)
        if lanes != self._lanes:
            self._lanes = lanes
            self._on_lanes()

"""The watch over a worker's engines: it looks at them, and at the requests that wait for them, after every change."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from tasks.worker.engines.turns import AsideLists
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
        on_change: called when :meth:`aside_lists` has another answer; on this thread.
    """

    def __init__(self, changes: Changes, upkeep: Upkeep, demand: Demand, on_change: Callable[[], None]) -> None:
        super().__init__(name="engines", daemon=True)
        self._changes = changes
        self._upkeep = upkeep
        self._demand = demand
        self._on_change = on_change
        self._aside_lists: dict[str, AsideLists] = {}
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

    def aside_lists(self, queue: str) -> AsideLists:
        """The aside lists of this queue that requests are taken from now. Never waits."""
        return self._aside_lists.get(queue) or AsideLists([], [])

    def look(self, now: float) -> None:
        """Run the actions that are due, and choose the aside lists."""
        look = self._demand.look()
        with self._changes.deciding() as actions:
            actions.extend(self._upkeep.due(now))
            lists = self._demand.answer(look, now)
        if lists != self._aside_lists:
            self._aside_lists = lists
            self._on_change()

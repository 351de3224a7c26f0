"""A request that waits for its engine, and where it waits: in its slot, or in its model's aside list."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container

    from tasks.models.key import EngineKey
    from tasks.worker.engines.download import Download
    from tasks.worker.engines.engine import Engine
    from worker_config.catalogue import ModelEntry

#: The longest time between two looks of a request that waits in its slot.
WAIT_S = 0.5
#: The longest time that a request keeps its slot while it waits for a model that should be ready soon.
HOLD_S = 5.0
#: Requests that a worker sets aside in a second, at most. Without a bound it would spend its time on a long queue that it
#: cannot serve.
MOVES_PER_S = 20.0


class Interrupted(Exception):
    """The job was stopped while it waited for its engine."""


class SetAside(Exception):
    """This worker does not run the request now: it goes to the aside list of ``key``, from which any worker may take it."""

    def __init__(self, key: EngineKey) -> None:
        super().__init__(f"set aside for {key}")
        self.key = key


class TooLarge(Exception):
    """The model does not fit into this worker, even alone beside the pinned ones, which leave ``most_bytes``."""

    def __init__(self, most_bytes: int) -> None:
        super().__init__(f"at most {most_bytes} bytes")
        self.most_bytes = most_bytes


@dataclass(slots=True, eq=False)
class LoadWait:
    """One request that waits for its engine.

    Args:
        entry: its model.
        key: the engine's key.
        queue: the queue that the request came from; empty for a load without a request.
        since: when it began to wait, in monotonic seconds.
        engine: the engine that it waits for, once there is one.
        download: the download that it waits for.
        began: whether this request began the load or the download.
        soon: whether the room that it needs should be free in a moment.
        floor_bytes: the least that its engine needs.
    """

    entry: ModelEntry
    key: EngineKey
    queue: str
    since: float
    engine: Engine | None = None
    download: Download | None = None
    began: bool = False
    soon: bool = False
    floor_bytes: int = 0


class Waits:
    """The requests of this worker that wait for engines, and which of them keep their slots. With the worker's lock held.

    Args:
        slots: the largest batch that a request can find itself in.
        queues: those whose requests may be set aside.
    """

    def __init__(self, slots: int, queues: Container[str]) -> None:
        self._slots = slots
        self._queues = queues
        self._waits: list[LoadWait] = []
        self._next_move_at = 0.0

    def add(self, wait: LoadWait) -> None:
        """A request begins to wait."""
        self._waits.append(wait)

    def remove(self, wait: LoadWait) -> None:
        """A request waits no more."""
        self._waits.remove(wait)

    def all(self) -> list[LoadWait]:
        """Those that wait, the longest waiting first."""
        return list(self._waits)

    def may_move(self, wait: LoadWait) -> bool:
        """Whether this request could be set aside instead."""
        return wait.queue in self._queues

    def stay_s(self, wait: LoadWait) -> float | None:
        """Return for how long this request waits in its slot before it looks again; ``None`` if it is set aside."""
        if not self.may_move(wait) or self._has_reason_to_stay(wait):
            return WAIT_S
        left_s = self._next_move_at - time.monotonic()
        if left_s > 0:
            return min(WAIT_S, left_s)
        self._next_move_at = time.monotonic() + 1 / MOVES_PER_S
        return None

    def _has_reason_to_stay(self, wait: LoadWait) -> bool:
        """Whether its model is on its way, and enough slots are left for others meanwhile."""
        if wait.engine is None and wait.download is None:
            return wait.soon and time.monotonic() - wait.since < HOLD_S
        if wait.engine is not None and wait.engine.reservation.retiring:
            return False
        of_queue = [other for other in self._waits if other.queue == wait.queue]
        return wait.began or of_queue.index(wait) < max(1, self._slots // 2)

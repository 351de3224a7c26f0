"""Room: how many requests of each queue this worker runs, and whether it takes one more."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


class Room:
    """Counts the slots in use; every thread may ask.

    Args:
        limits: slots by queue; a queue that is not named is bounded by ``total`` alone.
        total: slots in all.
        most_urgent: so many urgent requests run beyond the slots, each beside one of batch work.
        aside_lists: the models whose aside lists of a queue are read, before and after the queue's own lists.
        on_change: called, on whatever thread, when a queue that had no room has some again, or the other way round by a pause.
    """

    def __init__(
        self,
        limits: Mapping[str, int],
        total: int,
        aside_lists: Callable[[str], tuple[Sequence[str], Sequence[str]]] = lambda _queue: ((), ()),
        on_change: Callable[[], None] = lambda: None,
        most_urgent: int = 0,
    ) -> None:
        self.limits = dict(limits)
        self.total = total
        self.aside_lists = aside_lists
        self._on_change = on_change
        self.most_urgent = most_urgent
        self._busy: Counter[str] = Counter()
        self._batch_work: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._closed = False

    def has_room(self, queue: str, *, urgent: bool = False) -> bool:
        """Whether one more message of this queue could be run at once; an ``urgent`` one also beside batch work."""
        with self._lock:
            return not self._closed and self._fits(queue, urgent=urgent)

    def free(self, queue: str) -> int:
        """Return how many more messages of this queue could run at once."""
        with self._lock:
            left = min(self.total - self._busy.total(), self.limits.get(queue, self.total) - self._busy[queue])
            return 0 if self._closed else max(0, left)

    def slots(self, queues: Iterable[str]) -> dict[str, int]:
        """Return how many messages of each of these queues run at once, at most."""
        return {queue: self.limits.get(queue, self.total) for queue in queues}

    def in_use(self) -> int:
        """Return the number of slots in use."""
        with self._lock:
            return self._busy.total()

    def _fits(self, queue: str, *, urgent: bool = False) -> bool:
        beyond = min(self.most_urgent, self._batch_work.total()) if urgent else 0
        beyond_own = min(self.most_urgent, self._batch_work[queue]) if urgent else 0
        own = self.limits.get(queue, self.total)
        return self._busy.total() < self.total + beyond and self._busy[queue] < own + beyond_own

    def enter(self, queue: str, *, is_batch_work: bool = False) -> None:
        """A request of this queue takes a slot, even one too many: it is here, so it is counted."""
        with self._lock:
            self._busy[queue] += 1
            self._batch_work[queue] += is_batch_work

    def leave(self, queue: str, *, is_batch_work: bool = False) -> None:
        """A request of this queue frees its slot."""
        with self._lock:
            before = self._fits(queue), self._fits(queue, urgent=True)
            self._busy[queue] -= 1
            self._batch_work[queue] -= is_batch_work
            has_changed = before != (self._fits(queue), self._fits(queue, urgent=True))
            if self._busy.total() == 0:
                self._idle.notify_all()
        if has_changed:
            self._on_change()

    def busy(self) -> dict[str, int]:
        """Slots in use, by queue; queues without any are left out."""
        with self._lock:
            return {queue: count for queue, count in self._busy.items() if count}

    def close(self) -> None:
        """Take nothing more."""
        with self._lock:
            self._closed = True
        self._on_change()

    def reopen(self) -> None:
        """Take messages again."""
        with self._lock:
            self._closed = False
        self._on_change()

    @property
    def closed(self) -> bool:
        """Whether nothing is taken, however much room there is."""
        return self._closed

    def wait_idle(self, timeout_s: float) -> bool:
        """Wait until no slot is in use; ``False`` if that took too long."""
        with self._lock:
            return self._idle.wait_for(lambda: self._busy.total() == 0, timeout_s)

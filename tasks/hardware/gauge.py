"""A gauge that is read in the background, so that asking for its value never waits."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar

from tasks.hardware.machine import ProbeFailed

if TYPE_CHECKING:
    from collections.abc import Callable

Reading = TypeVar("Reading")

#: The age, in intervals, from which on a reading is no longer shown.
STALE_AFTER_INTERVALS = 5


class Gauge(Generic[Reading]):
    """The latest reading of something slow. The first one is begun at once, later ones as :meth:`latest` is asked.

    Args:
        read: takes a reading. It runs on a thread of its own, one at a time; where it raises :class:`ProbeFailed` there
            is nothing to read on this machine and it is not called again.
        every_s: the least time between the beginnings of two readings.
        clock: seconds that only go up.
    """

    def __init__(
        self, read: Callable[[], Reading], every_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._every_s = every_s
        self._clock = clock
        self._lock = threading.Lock()
        self._nothing_to_read = False
        self._value: Reading | None = None
        self._begun_at = self._value_at = clock()
        self._reader = self._start()

    def latest(self) -> Reading | None:
        """The last reading; ``None`` before the first and where the last one is too old to be true."""
        self._read_again_if_due()
        with self._lock:
            fresh = self._clock() - self._value_at <= STALE_AFTER_INTERVALS * self._every_s
            return self._value if fresh else None

    def wait(self, timeout_s: float) -> None:
        """Waits for the reading that is under way, if one is."""
        self._reader.join(timeout_s)

    def _read_again_if_due(self) -> None:
        with self._lock:
            due = self._clock() - self._begun_at >= self._every_s
            if due and not self._reader.is_alive() and not self._nothing_to_read:
                self._begun_at = self._clock()
                self._reader = self._start()

    def _start(self) -> threading.Thread:
        reader = threading.Thread(target=self._take, name="gauge", daemon=True)
        reader.start()
        return reader

    def _take(self) -> None:
        try:
            value = self._read()
        except ProbeFailed:
            self._nothing_to_read = True
            return
        with self._lock:
            self._value, self._value_at = value, self._clock()

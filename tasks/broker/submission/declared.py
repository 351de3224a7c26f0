"""The queues that a producer has declared: workers and the sweep find a queue by kombu's note of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from kombu import Queue


class Declared:
    """Declares each queue once, because a producer sends many requests to few queues."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def once(self, queue: Queue, declare: Callable[[Queue], object]) -> None:
        """Declare a queue, unless that has succeeded before."""
        if queue.name not in self._names:
            declare(queue)
            self._names.add(queue.name)

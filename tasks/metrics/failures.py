"""The last requests that failed on a worker, for `fleet` and the metrics."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

KEPT = 5
LONGEST = 200


class RecentFailures:
    """A few failures, the newest last; any thread may call it.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kept: deque[tuple[float, dict[str, Any]]] = deque(maxlen=KEPT)

    def note(self, task_id: str, model: str, code: str, reason: str) -> None:
        """A request failed. ``reason`` says nothing of a prompt."""
        failure = {"task_id": task_id, "model": model, "code": code, "reason": reason[:LONGEST]}
        self._kept.append((self._clock(), failure))

    def snapshot(self) -> list[dict[str, Any]]:
        """Each failure with its ``age_s``."""
        now = self._clock()
        return [{"age_s": round(now - at, 1), **failure} for at, failure in list(self._kept)]

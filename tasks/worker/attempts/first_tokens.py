"""Measures how soon models give first tokens here, for requests whose deadline may pass before."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

#: Older measurements do not count: a slow minute would turn away requests that would be quick again.
FRESH_S = 60.0
#: One or two may have been the long prompts.
LEAST = 4
MOST = 64


class FirstTokens:
    """Remembers, for each model, the times from claim to first token. Every thread may ask.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._measured: dict[str, deque[tuple[float, float]]] = {}

    def note(self, model: str, first_token_s: float) -> None:
        """A request had its first token after so many seconds."""
        with self._lock:
            self._measured.setdefault(model, deque(maxlen=MOST)).append((self._clock(), first_token_s))

    def soonest_s(self, model: str) -> float:
        """The least that any of the last minute's requests waited; 0 where too few were measured to say."""
        with self._lock:
            fresh = self._clock() - FRESH_S
            times = [first_s for at, first_s in self._measured.get(model, ()) if at >= fresh]
        return min(times) if len(times) >= LEAST else 0.0

"""Models that could not be loaded: why, how often in a row, and when each may be tried again. Times are monotonic seconds.

An engine that a signal ends while it loads says nothing of its model (the system's out-of-memory killer, an operator): the
model is tried again for waiting requests, and has failed only after :data:`MOST_LOAD_CRASHES` such deaths in a row.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tasks.errors import EngineFailed
from tasks.messages.registry import EngineState

if TYPE_CHECKING:
    from tasks.errors import GenerationError

logger = logging.getLogger(__name__)

RETRY_FIRST_S = 2.0
RETRY_MOST_S = 300.0
#: Failed starts in a row after which a worker calls itself degraded for a model.
DEGRADED_AFTER = 3
#: A model that nobody has asked for again for so long since it might be tried is held against the worker no more: as long as
#: the metrics remember (:data:`tasks.metrics.collector.WINDOW_S`).
FORGET_S = 300.0
#: A model whose engine a signal ended this many times in a row while it loaded has failed to load.
MOST_LOAD_CRASHES = 3


@dataclass(slots=True)
class Failure:
    """One model's failures in a row, the last one's error, and when it may be tried again."""

    count: int
    error: GenerationError
    retry_at: float


@dataclass(slots=True)
class LoadCrashes:
    """Loads of a model that a signal ended: how many in a row, when the last one, and when the next one may begin."""

    count: int
    at: float
    retry_at: float


class Failures:
    """The known failures of models. For one thread at a time.

    Args:
        retry_first_s: how long a model that failed to load is not tried again; each time in a row twice as long.
    """

    def __init__(self, retry_first_s: float = RETRY_FIRST_S) -> None:
        self._retry_first_s = retry_first_s
        self._failed: dict[str, Failure] = {}
        self._crashed: dict[str, LoadCrashes] = {}

    def note(self, name: str, error: GenerationError) -> None:
        """A model could not be loaded: it is not tried again at once, and each time in a row after twice the pause."""
        earlier = self._failed.get(name)
        count = earlier.count + 1 if earlier else 1
        pause_s = min(self._retry_first_s * 2 ** min(count - 1, 10), RETRY_MOST_S)
        self._failed[name] = Failure(count, error, time.monotonic() + pause_s)
        logger.error("model %s: %s; it is tried again in %.0f s", name, error, pause_s)

    def crashed(self, name: str, ending: str) -> GenerationError | None:
        """A signal ended a model's engine while it loaded, or its download. The error of those who wait, once it is not tried
        again.

        The second try comes at once, the third after a pause, so that the cause of the first two can pass.
        """
        now = time.monotonic()
        earlier = self._crashed.get(name)
        count = earlier.count + 1 if earlier is not None and now - earlier.at < FORGET_S else 1
        self._crashed[name] = LoadCrashes(count, now, now + (self._retry_first_s if count > 1 else 0.0))
        if count >= MOST_LOAD_CRASHES:
            return EngineFailed(f"model {name!r}: its process died {count} times in a row while it loaded; {ending}")
        logger.warning("model %s died while it loaded, %d times in a row, and is tried again: %s", name, count, ending)
        return None

    def pause_s(self, name: str) -> float:
        """Return for how long a model that died while it loaded is not tried again; 0 if it may be now."""
        crashed = self._crashed.get(name)
        return max(0.0, crashed.retry_at - time.monotonic()) if crashed is not None else 0.0

    def forget(self, name: str) -> None:
        """A model was loaded."""
        self._failed.pop(name, None)
        self._crashed.pop(name, None)

    def error_of(self, name: str) -> GenerationError | None:
        """Return why a model is not tried now; ``None`` if it may be."""
        failed = self._failed.get(name)
        return failed.error if failed is not None and time.monotonic() < failed.retry_at else None

    def degraded(self) -> str:
        """Return why the worker cannot serve what it should; empty if it can."""
        self._forget_old()
        return "; ".join(
            f"{name}: failed to load {failure.count} times, {failure.error}"
            for name, failure in self._failed.items()
            if failure.count >= DEGRADED_AFTER
        )

    def states(self) -> list[EngineState]:
        """The failed models, as the registry shows them."""
        self._forget_old()
        return [
            EngineState(model=name, state="failed", reason=str(failure.error)) for name, failure in self._failed.items()
        ]

    def _forget_old(self) -> None:
        edge = time.monotonic() - FORGET_S
        self._failed = {name: failure for name, failure in self._failed.items() if failure.retry_at > edge}

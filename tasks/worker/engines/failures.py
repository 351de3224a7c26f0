"""Models that could not be loaded: why, how often in a row, and when each may be tried again. Times are monotonic seconds."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

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


@dataclass(slots=True)
class Failure:
    """One model's failures in a row, the last one's error, and when it may be tried again."""

    count: int
    error: GenerationError
    retry_at: float


class Failures:
    """What is known against models. For one thread at a time."""

    def __init__(self) -> None:
        self._failed: dict[str, Failure] = {}

    def note(self, name: str, error: GenerationError) -> None:
        """A model could not be loaded: it is not tried again at once, and each time in a row after twice the pause."""
        earlier = self._failed.get(name)
        count = earlier.count + 1 if earlier else 1
        pause_s = min(RETRY_FIRST_S * 2 ** min(count - 1, 10), RETRY_MOST_S)
        self._failed[name] = Failure(count, error, time.monotonic() + pause_s)
        logger.error("model %s: %s; it is tried again in %.0f s", name, error, pause_s)

    def forget(self, name: str) -> None:
        """A model was loaded."""
        self._failed.pop(name, None)

    def error_of(self, name: str) -> GenerationError | None:
        """Why a model is not tried now; ``None`` if it may be."""
        failed = self._failed.get(name)
        return failed.error if failed is not None and time.monotonic() < failed.retry_at else None

    def degraded(self) -> str:
        """Why the worker cannot serve what it should; empty if it can."""
        self._forget_old()
        return "; ".join(
            f"{name}: failed to load {each.count} times, {each.error}"
            for name, each in self._failed.items()
            if each.count >= DEGRADED_AFTER
        )

    def states(self) -> list[EngineState]:
        """The failed models, as the registry shows them."""
        self._forget_old()
        return [EngineState(model=name, state="failed", reason=str(each.error)) for name, each in self._failed.items()]

    def _forget_old(self) -> None:
        edge = time.monotonic() - FORGET_S
        self._failed = {name: each for name, each in self._failed.items() if each.retry_at > edge}

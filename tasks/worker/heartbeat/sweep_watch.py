"""Warns that no sweep is running: without one, nobody takes over from a dead worker."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from tasks.names import COMMAND

if TYPE_CHECKING:
    from tasks.registry import Beat

logger = logging.getLogger(__name__)

WARN_EVERY_S = 600.0


class SweepWatch:
    """Compares, after each beat, the time of the last sweep with that of the beat.

    Args:
        no_sweep_s: how long no sweep may have been seen before that is warned of.
    """

    def __init__(self, no_sweep_s: float = 10.0) -> None:
        self._no_sweep_s = no_sweep_s
        self._warn_at = time.monotonic() + no_sweep_s

    def look(self, beat: Beat) -> None:
        """Warn where it is time to; the times of the beat are Redis's."""
        now = time.monotonic()
        if beat.swept_at is not None and beat.at - beat.swept_at < self._no_sweep_s:
            self._warn_at = now + self._no_sweep_s
        elif now >= self._warn_at:
            self._warn_at = now + WARN_EVERY_S
            logger.warning("no sweep is running, so the requests of a dead worker wait: start %s beat", COMMAND)

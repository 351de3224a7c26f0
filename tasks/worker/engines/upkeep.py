"""The state that engines are kept in: idle ones end, stuck ones are replaced, and pinned models are loaded again."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING

from tasks.errors import ModelLoadFailed
from tasks.models.key import key_of

if TYPE_CHECKING:
    from tasks.worker.engines.changes import Action
    from tasks.worker.engines.engine import Engine
    from tasks.worker.engines.loading import Loading
    from tasks.worker.engines.preloads import Preloads
    from worker_config.settings import Settings

logger = logging.getLogger(__name__)


class Upkeep:
    """Decides on actions for engines that no request asks for.

    Args:
        settings: the time-outs.
        loading: the engines.
        preloads: loads pinned models.
    """

    def __init__(self, settings: Settings, loading: Loading, preloads: Preloads) -> None:
        self._settings = settings
        self._loading = loading
        self._preloads = preloads

    def due(self, now: float) -> list[Action]:
        """Return the actions due at this monotonic time. With the worker's lock held."""
        actions: list[Action] = []
        for engine in list(self._loading.engines.values()):
            if self._idles_too_long(engine, now):
                idle_s = now - engine.reservation.used_at
                actions += self._loading.end(engine, f"after {idle_s:.0f} s without a request")
        for entry in self._loading.pinned.values():
            if self._loading.failures.error_of(entry.name) is None:
                actions += self._preloads.begin(entry)
        return [*actions, *(partial(self._end_if_stuck, engine) for engine in self._loading.engines.values())]

    def _idles_too_long(self, engine: Engine, now: float) -> bool:
        keep_s = engine.keep_alive_s
        if keep_s is None:
            keep_s = engine.entry.keep_alive_s
        if keep_s is None:
            keep_s = self._settings.keep_alive_s
        return keep_s > 0 and engine.reservation.idle and now - engine.reservation.used_at > keep_s

    def _end_if_stuck(self, engine: Engine) -> None:
        stall_s, load_s = self._settings.stall_timeout_s, self._settings.load_timeout_s
        if engine.stalled(stall_s):
            logger.error(
                "engine %s of %s made no step for %.0f s although it has work; it is replaced",
                *(engine.pid, engine.entry.name, stall_s),
            )
            engine.kill()
        elif engine.reservation.state == "loading" and time.monotonic() - engine.reservation.since > load_s:
            engine.give_up(ModelLoadFailed(f"model {key_of(engine.entry)!r} was not loaded within {load_s:g} s"))

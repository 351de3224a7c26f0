"""Loads that no request waits for: of pinned models, and those that an operator asks for."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from tasks.errors import GenerationError
from tasks.models.key import EngineKey, key_of
from tasks.worker.engines.waiting import Interrupted

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.worker.engines.changes import Action, Changes
    from tasks.worker.engines.engine import Engine
    from tasks.worker.engines.loading import Loading
    from worker_config.catalogue import ModelEntry

logger = logging.getLogger(__name__)


class Preloads:
    """Each has a thread, which waits for the engine as a request would.

    Args:
        changes: the worker's lock.
        loading: the engines.
        acquire: waits for the engine of a model.
        release: gives it back.
        announce: called once a load has ended.
    """

    def __init__(
        self,
        changes: Changes,
        loading: Loading,
        acquire: Callable[[ModelEntry], Engine],
        release: Callable[[Engine], None],
        announce: Callable[[], None],
    ) -> None:
        self._changes = changes
        self._loading = loading
        self._acquire = acquire
        self._release = release
        self._announce = announce
        self._threads: dict[EngineKey, threading.Thread] = {}

    @property
    def active(self) -> bool:
        """Whether there is any. With the lock held."""
        return bool(self._threads)

    def begin(self, entry: ModelEntry) -> list[Action]:
        """Load a model unless it is here or on its way. With the lock held."""
        key = key_of(entry)
        if key in self._loading.engines or key in self._threads or self._loading.outdated:
            return []
        thread = self._threads[key] = threading.Thread(
            target=self._load, args=(entry,), name=f"load-{entry.name}", daemon=True
        )
        return [thread.start]

    def pin(self, entry: ModelEntry) -> list[Action]:
        """Load a model, and have its engine stay. With the lock held."""
        key = key_of(entry)
        self._loading.pinned[key] = entry
        if key in self._loading.engines:
            self._loading.engines[key].reservation.pinned = True
        return self.begin(entry)

    def _load(self, entry: ModelEntry) -> None:
        error: GenerationError | None = None
        try:
            self._release(self._acquire(entry))
        except GenerationError as caught:
            error = caught
        except Interrupted:
            logger.debug("model %s is not loaded any more: it was unloaded, or the worker ends", entry.name)
        finally:
            with self._changes:
                del self._threads[key_of(entry)]
                if error is not None and self._loading.failures.error_of(entry.name) is None:
                    self._loading.fail(entry, error)
            # The engine's own announcement came before: a worker says that it loads as long as there is a thread.
            self._announce()

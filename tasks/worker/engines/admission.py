"""A request's way to its engine."""

from __future__ import annotations

import time
from copy import copy
from typing import TYPE_CHECKING

from tasks.errors import GenerationError, OutOfMemory
from tasks.models.key import key_of
from tasks.worker.engines.loading import gb
from tasks.worker.engines.waiting import Interrupted, LoadWait, SetAside, TooLarge

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from tasks.worker.attempts.job import Job
    from tasks.worker.engines.backlog import Backlog
    from tasks.worker.engines.changes import Changes
    from tasks.worker.engines.engine import Engine
    from tasks.worker.engines.known import KnownModels
    from tasks.worker.engines.loading import Loading
    from tasks.worker.engines.waiting import Waits
    from worker_config.catalogue import ModelEntry


class Admission:
    """Gives each request its engine, has it wait in its slot, or sets it aside.

    Args:
        changes: the worker's lock.
        loading: the engines.
        known: the memory that models need.
        backlog: the set-aside requests, and the other workers.
        waits: the requests that wait in slots.
        closing: set once the worker ends.
        announce: says that an engine came or went.
    """

    def __init__(
        self,
        changes: Changes,
        loading: Loading,
        known: KnownModels,
        backlog: Backlog,
        waits: Waits,
        closing: threading.Event,
        announce: Callable[[], None],
    ) -> None:
        self._changes = changes
        self._loading = loading
        self._known = known
        self._backlog = backlog
        self._peers = backlog.peers
        self._waits = waits
        self._closing = closing
        self._announce = announce

    def acquire(self, entry: ModelEntry, job: Job | None = None) -> Engine:
        """See :meth:`tasks.worker.engines.engines.Engines.acquire`."""
        wait = LoadWait(entry, key_of(entry), job.queue if job is not None else "", time.monotonic())
        try:
            return self._wait_for_engine(wait, job)
        except TooLarge as error:
            raise self._too_large(wait, error.most_bytes) from None
        except GenerationError:
            if self._waits.may_move(wait) and self._somebody_has(wait):
                raise self._set_aside(wait) from None
            raise

    def why_too_large(self, entry: ModelEntry, needed_bytes: int, most_bytes: int, queue: str = "") -> str:
        """An error's text for a model that can never be loaded here."""
        total_bytes = self._loading.budget.total_bytes
        pinned = f", of which pinned models leave {gb(most_bytes)}" if most_bytes < total_bytes else ""
        others = self._peers.room(queue)
        return (
            f"model {entry.name!r} needs {gb(needed_bytes)} and this worker may use {gb(total_bytes)}{pinned}"
            f"{f'; the others that serve {queue}: {others}' if others else ''}: send it to a larger machine, or take a "
            "smaller or more strongly quantised model"
        )

    def _wait_for_engine(self, wait: LoadWait, job: Job | None) -> Engine:
        with self._changes:
            self._waits.add(wait)
        try:
            while True:
                known = None if wait.key in self._loading.engines else self._known.look_up(wait.entry)
                with self._changes.deciding() as actions:
                    seen = self._changes.count
                    if (job is not None and job.reason is not None) or self._closing.is_set():
                        raise Interrupted(job.reason if job is not None else "closing")
                    self._require_no_failure(wait)
                    if job is None and self._was_unloaded(wait):
                        raise Interrupted("unloaded")
                    if wait.key not in self._loading.engines and known is not None:
                        actions.extend(self._loading.bring(wait, known))
                        if actions:
                            actions.append(self._announce)
                    wait.engine = engine = self._loading.engines.get(wait.key)
                    if engine is not None and engine.serves:
                        engine.reservation.users += 1
                        return engine
                    stay_s = self._waits.stay_s(wait)
                if stay_s is None:
                    raise self._set_aside(wait)
                self._changes.wait_for_change(seen, stay_s)
        finally:
            with self._changes:
                self._waits.remove(wait)

    def _was_unloaded(self, wait: LoadWait) -> bool:
        """Whether the engine that a load without a request waits for was ended meanwhile, and did not die: it stays ended."""
        return (
            wait.engine is not None and not wait.engine.gone and self._loading.engines.get(wait.key) is not wait.engine
        )

    def _require_no_failure(self, wait: LoadWait) -> None:
        """Raise the error that ended the engine or the download that a request waits for.

        Raises:
            GenerationError: a copy, because each raise of one object adds to its traceback, which is stored with results.
        """
        if wait.engine is not None and wait.engine.failure is not None:
            raise copy(wait.engine.failure)
        if wait.download is not None and wait.download.done:
            error: GenerationError | None = wait.download.error
            if wait.download.killed:
                error = self._loading.failures.error_of(wait.key)
            elif wait.download.outdated:  # the worker ends, and gives its requests back
                error = None
            if error is not None:
                raise copy(error)
            wait.download = None

    def _somebody_has(self, wait: LoadWait) -> bool:
        self._peers.look()
        return self._peers.have_loaded(wait.queue, wait.key)

    def _set_aside(self, wait: LoadWait) -> SetAside:
        self._backlog.note(wait.queue, wait.key)
        return SetAside(wait.key)

    def _too_large(self, wait: LoadWait, most_bytes: int) -> Exception:
        """Return the end of a request whose model can never be loaded here: another's work, or an error with the numbers."""
        if self._waits.may_move(wait):
            self._peers.look()
            if self._peers.could_load(wait.queue, wait.entry):
                return self._set_aside(wait)
        return OutOfMemory(self.why_too_large(wait.entry, wait.floor_bytes, most_bytes, wait.queue))

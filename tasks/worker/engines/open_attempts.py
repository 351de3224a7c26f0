"""The attempts in one engine: which it has, how far each is, and how they end when its process does."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from tasks.messages.embedding import Embedded
from tasks.messages.engine import Failed, Finished, Started, Tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tasks.messages.engine import Event
    from tasks.messages.journal import Entry
    from tasks.worker.attempts.attempt import Attempt


class OpenAttempts:
    """Every thread may call it.

    Args:
        publish: takes the entries that attempts say, each with its attempt.
    """

    def __init__(self, publish: Callable[[list[tuple[Attempt, Entry]]], None]) -> None:
        self._publish = publish
        self._attempts: dict[str, Attempt] = {}
        #: Those whose prompts are in the batch.
        self._started: set[str] = set()
        #: Those that are rendered or tokenised just now, as far as the process says so.
        self._preparing: set[str] = set()
        self._changed = threading.Condition()
        #: When the process last made a step, began or ended to prepare a request, or got work after having none.
        self.progress_at = 0.0
        #: Whether the process has ended: none is taken any more.
        self.closed = False

    def __len__(self) -> int:
        return len(self._attempts)

    def enter(self, attempt: Attempt) -> bool:
        """Take an attempt; ``False`` if the process has ended.

        An earlier attempt at the request, which this worker lost, may still be on its way out, and is waited for.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.closed or attempt.task_id not in self._attempts)
            if self.closed:
                return False
            if not self._attempts:
                self.progress_at = time.monotonic()
            self._attempts[attempt.task_id] = attempt
            return True

    def leave(self, task_id: str) -> None:
        """The process does not have this attempt, and will not have it."""
        with self._changed:
            self._forget(task_id)
            self._changed.notify_all()

    def has(self, attempt: Attempt) -> bool:
        """Whether the process has this very attempt, and not another attempt at its request."""
        with self._changed:
            return self._attempts.get(attempt.task_id) is attempt

    def stalled(self, timeout_s: float) -> bool:
        """Whether there are attempts, and no step was made and none begun to be prepared, for so long."""
        with self._changed:
            return bool(self._attempts) and time.monotonic() - self.progress_at > timeout_s

    def prepare(self, task_id: str, *, done: bool) -> None:
        """Note that the process prepares an attempt from now on, or is done with that. Each may take as long as a step."""
        with self._changed:
            self.progress_at = time.monotonic()
            if done:
                self._preparing.discard(task_id)
            elif task_id in self._attempts:
                self._preparing.add(task_id)

    def take(self, events: Iterable[Event]) -> None:
        """Take a step's events."""
        entries: list[tuple[Attempt, Entry]] = []
        try:
            with self._changed:
                self.progress_at = time.monotonic()
                for event in events:
                    self._take_event(event, entries)
                self._changed.notify_all()
        finally:
            if entries:
                self._publish(entries)

    def close(self, *, was_ready: bool) -> int:
        """The process has ended: its attempts go back, those that it worked on with a crash to their account; how many."""
        with self._changed:
            self.closed = True
            attempts, self._attempts = self._attempts, {}
            started, self._started = self._started | self._preparing, set()
            self._changed.notify_all()
        if attempts and not started and was_ready:
            # Nothing was computed: the first of them was being rendered or tokenised, and the engine died of that, or was
            # ended for its silence. Whose work it was has to count, or the request would end one engine after the other.
            # Beside others that run it does not count the first time, and the process says so the next time.
            started = {next(iter(attempts))}
        self._publish(
            [(attempt, _after_crash(attempt, in_batch=task_id in started)) for task_id, attempt in attempts.items()]
        )
        return len(attempts)

    def _take_event(self, event: Event, entries: list[tuple[Attempt, Entry]]) -> None:
        attempt = self._attempts.get(event.task_id)
        if attempt is None:
            return
        # An attempt that has finished was lost, to another worker for instance: it is here until the engine is done with it.
        # Half a character, let go at the abort, is left out when it is handed back: the next attempt emits it whole.
        half = attempt.stop_reason == "requeue" and isinstance(event, Tokens) and not event.ids
        if attempt.outcome is None and not half:
            entries.append((attempt, attempt.take(event)))
        if isinstance(event, Started):
            self._started.add(event.task_id)
        elif isinstance(event, Finished | Failed | Embedded):
            self._forget(event.task_id)

    def _forget(self, task_id: str) -> None:
        self._attempts.pop(task_id, None)
        self._started.discard(task_id)
        self._preparing.discard(task_id)


def _after_crash(attempt: Attempt, *, in_batch: bool) -> Entry:
    """Return the end of an attempt whose engine died: an earlier reason to stop it still stands."""
    if attempt.stop_reason == "cancelled":
        return attempt.end("cancelled")
    if attempt.stop_reason == "soft_time_limit":
        return attempt.late()
    if attempt.stop_reason == "time_limit":
        return attempt.error("deadline_exceeded", f"the time limit of {attempt.limit_s:g} s passed")
    return attempt.release(crashed=in_batch)

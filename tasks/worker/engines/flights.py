"""The flights in one engine: which it has, how far each is, and what becomes of them when its process ends."""

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
    from tasks.worker.attempts.attempt import Flight


class Flights:
    """Every thread may call it.

    Args:
        publish: takes the entries that flights say, each with its flight.
    """

    def __init__(self, publish: Callable[[list[tuple[Flight, Entry]]], None]) -> None:
        self._publish = publish
        self._flights: dict[str, Flight] = {}
        #: Those whose prompts are in the batch.
        self._started: set[str] = set()
        self._changed = threading.Condition()
        #: When the process last made a step, or got work after having none.
        self.progress_at = 0.0
        #: Whether the process has ended: none is taken any more.
        self.closed = False

    def __len__(self) -> int:
        return len(self._flights)

    def enter(self, flight: Flight) -> bool:
        """Take a flight; ``False`` if the process has ended.

        An earlier attempt at the request, which this worker lost, may still be on its way out, and is waited for.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.closed or flight.task_id not in self._flights)
            if self.closed:
                return False
            if not self._flights:
                self.progress_at = time.monotonic()
            self._flights[flight.task_id] = flight
            return True

    def leave(self, task_id: str) -> None:
        """The process does not have this flight, and will not have it."""
        with self._changed:
            self._forget(task_id)
            self._changed.notify_all()

    def has(self, flight: Flight) -> bool:
        """Whether the process has this very flight, and not another attempt at its request."""
        with self._changed:
            return self._flights.get(flight.task_id) is flight

    def stalled(self, timeout_s: float) -> bool:
        """Whether there are flights, and no step was made, for so long."""
        with self._changed:
            return bool(self._flights) and time.monotonic() - self.progress_at > timeout_s

    def take(self, events: Iterable[Event]) -> None:
        """Take what a step has said of each."""
        entries: list[tuple[Flight, Entry]] = []
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
        """The process has ended: its flights go back, those that it worked on with a crash to their account; how many."""
        with self._changed:
            self.closed = True
            flights, self._flights = self._flights, {}
            started, self._started = self._started, set()
            self._changed.notify_all()
        if flights and not started and was_ready:
            # Nothing was computed: the first in line was being rendered or tokenised, and the engine died of that, or was
            # ended for its silence. Whose work it was has to count, or the request would end one engine after the other.
            started = {next(iter(flights))}
        self._publish(
            [(flight, _after_crash(flight, in_batch=task_id in started)) for task_id, flight in flights.items()]
        )
        return len(flights)

    def _take_event(self, event: Event, entries: list[tuple[Flight, Entry]]) -> None:
        flight = self._flights.get(event.task_id)
        if flight is None:
            return
        # A flight that has landed was lost, to another worker for instance: it is here until the engine is done with it.
        # Half a character, let go at the abort, is left out when it is handed back: the next attempt emits it whole.
        half = flight.stop_reason == "requeue" and isinstance(event, Tokens) and not event.ids
        if flight.outcome is None and not half:
            entries.append((flight, flight.take(event)))
        if isinstance(event, Started):
            self._started.add(event.task_id)
        elif isinstance(event, Finished | Failed | Embedded):
            self._forget(event.task_id)

    def _forget(self, task_id: str) -> None:
        self._flights.pop(task_id, None)
        self._started.discard(task_id)


def _after_crash(flight: Flight, *, in_batch: bool) -> Entry:
    """What becomes of a flight whose engine died: what it was to stop for still stands."""
    if flight.stop_reason == "cancelled":
        return flight.end("cancelled")
    if flight.stop_reason == "soft_time_limit":
        return flight.late()
    if flight.stop_reason == "time_limit":
        return flight.error("deadline_exceeded", f"the time limit of {flight.limit_s:g} s passed")
    return flight.release(crashed=in_batch)

"""The publisher: the one thread that writes tokens to Redis.

It takes whatever has come since its last write and sends it in one call. While Redis is slow or away, what comes for one
request grows into one larger entry, so that what waits is bounded by the requests' ``max_tokens``, and no engine ever waits.
"""

from __future__ import annotations

import logging
import random
import threading
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, TypeVar

from tasks.errors import BrokerUnavailable, GenerationError
from tasks.messages.journal import End, Entry, Error, Release, Token, decode
from tasks.worker.attempts.attempt import Fenced, Flight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tasks.journal.items import Append
    from tasks.journal.writer import Journal, Status

logger = logging.getLogger(__name__)

RETRY_MIN_S = 0.05
RETRY_MAX_S = 1.0

Answer = TypeVar("Answer")


@dataclass(slots=True, eq=False)
class _Writing:
    """What is written of one flight at once. ``known`` counts the items that it had before."""

    flight: Flight
    entries: list[Entry]
    known: int
    items: list[Append] = field(default_factory=list)

    def note(self) -> None:
        """Make the entries items of the journal."""
        self.entries = _coalesce(self.entries)
        self.items = [self.flight.note(entry) for entry in self.entries]


class Publisher(threading.Thread):
    """Writes entries of flights in the order in which they were put; lands a flight when its outcome is written.

    Args:
        journal: where the entries go.
        identity: this worker's ``node#boot``.
    """

    def __init__(self, journal: Journal, identity: str = "") -> None:
        super().__init__(name="publisher", daemon=True)
        self._journal = journal
        self._identity = identity
        self._pending: dict[Flight, list[Entry]] = {}
        self._open: set[Flight] = set()
        self._doubted: set[Flight] = set()
        self._changed = threading.Condition()
        self._stopping = False
        #: Calls to Redis and entries written, for the record and for tests that count.
        self.writes = 0
        self.entries = 0

    def open(self, flight: Flight, instead_of: Flight | None = None) -> None:
        """Look after the journal of a flight that this worker has claimed, and no more after that of an earlier attempt."""
        with self._changed:
            if instead_of is not None:
                self._open.discard(instead_of)
            self._open.add(flight)

    def close(self, flight: Flight) -> None:
        """Look after its journal no more: whatever follows from its end has been done."""
        with self._changed:
            self._open.discard(flight)

    def doubt(self) -> None:
        """Redis may have come back older than it was: write what it lacks of the open flights' journals."""
        with self._changed:
            self._doubted |= {flight for flight in self._open if not flight.is_recorded}
            self._changed.notify()

    def put(self, items: Iterable[tuple[Flight, Entry]]) -> None:
        """Have these written; returns at once."""
        with self._changed:
            for flight, entry in items:
                if flight.is_recorded:
                    flight.settle(entry)
                else:
                    self._pending.setdefault(flight, []).append(entry)
            self._changed.notify()

    def run(self) -> None:
        """Write until stopped; what is pending then is written first."""
        while (work := self._take()) is not None:
            batch, doubted = work
            for flight in doubted:
                self._try(_Writing(flight, [], len(flight.items)), partial(self._fill, flight))
            if batch:
                self._write(batch)

    def stop(self) -> None:
        """Write what is pending and end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self.is_alive():
            self.join(5)

    def _take(self) -> tuple[dict[Flight, list[Entry]], set[Flight]] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._doubted or self._stopping)
            batch, self._pending = self._pending, {}
            doubted, self._doubted = self._doubted, set()
        return (batch, doubted) if batch or doubted else None

    def _write(self, batch: dict[Flight, list[Entry]]) -> None:
        writings = [_Writing(flight, entries, len(flight.items)) for flight, entries in batch.items()]
        writings = [
            waiting for waiting in writings if waiting.flight.outcome is None and self._try(waiting, waiting.note)
        ]
        if len(writings) == 1 or not self._try_together(writings):
            for writing in writings:
                self._try(writing, partial(self._send, [writing]))

    def _try_together(self, writings: list[_Writing]) -> bool:
        try:
            self._send(writings)
        except BrokerUnavailable:
            for writing in writings:
                self._hand_back(writing.flight)
        except Exception:
            logger.exception("%d journals cannot be written together; trying them one by one", len(writings))
            return False
        return True

    def _try(self, writing: _Writing, write: Callable[[], None]) -> bool:
        """Do it; whatever it raises ends this one flight, and never this thread."""
        try:
            write()
        except BrokerUnavailable:
            self._hand_back(writing.flight)
        except Exception as error:
            logger.exception("the journal of request %s cannot be written", writing.flight.task_id)
            self._fail(writing, error)
            return False
        return True

    def _hand_back(self, flight: Flight) -> None:
        """This worker ends while Redis is away: another one goes on from what the journal has."""
        flight.land(flight.release(crashed=False))

    def _send(self, writings: list[_Writing]) -> None:
        """Write these, and land the flights whose outcome is among them. It may be repeated."""
        items = [item for writing in writings for item in writing.items]
        if not items:
            return
        statuses = iter(self._patiently(lambda: self._journal.append(items)))
        self.writes += 1
        self.entries += len(items)
        for writing in writings:
            self._settle(writing, [next(statuses) for _ in writing.items])

    def _settle(self, writing: _Writing, statuses: list[Status]) -> None:
        flight = writing.flight
        if "gone" in statuses or "behind" in statuses:
            logger.warning("Redis has lost a part of the journal of request %s; writing it again", flight.task_id)
            self._fill(flight)
        elif "fenced" in statuses:
            self._lose(flight)
        elif isinstance(writing.entries[-1], End | Error | Release):
            flight.land(writing.entries[-1])

    def _fill(self, flight: Flight) -> None:
        """Write from memory what Redis has lost: it came back older than it was, or without its data."""
        if isinstance(flight.outcome, Fenced | Release):
            return
        if not self._patiently(partial(self._filled, flight)):
            self._lose(flight)
            return
        last = decode(flight.items[-1].payload)
        if isinstance(last, End | Error | Release):
            flight.land(last)

    def _filled(self, flight: Flight) -> bool:
        return self._journal.fill(flight.task_id, flight.items, self._identity, flight.held)

    def _lose(self, flight: Flight) -> None:
        logger.warning("request %s was taken over or ended elsewhere; this run is dropped", flight.task_id)
        flight.land(Fenced())

    def _fail(self, writing: _Writing, error: Exception) -> None:
        """End a flight with an error, and its journal too where that takes one."""
        flight = writing.flight
        if not isinstance(error, GenerationError):
            error = GenerationError(f"the request's journal could not be written ({type(error).__name__})")
        outcome = flight.error(error.code, str(error))
        del flight.items[writing.known :]
        flight.note(outcome)
        with suppress(Exception):
            self._patiently(partial(self._filled, flight))
        flight.land(outcome)

    def _patiently(self, write: Callable[[], Answer]) -> Answer:
        """Do it until Redis has answered: an outage delays a request's end and never fails it.

        Raises:
            BrokerUnavailable: it is away, and this worker has no time left to wait for it.
        """
        pause_s = RETRY_MIN_S
        while True:
            try:
                return write()
            except BrokerUnavailable as error:
                if self._stopping:
                    raise
                logger.warning("%s; trying again", error)
            with self._changed:
                self._changed.wait_for(lambda: self._stopping, pause_s * random.uniform(0.5, 1.5))
            pause_s = min(pause_s * 2, RETRY_MAX_S)


def _coalesce(entries: list[Entry]) -> list[Entry]:
    """The entries with each run of tokens of one kind, and of one call, as one."""
    merged: list[Entry] = []
    for _, group in groupby(entries, _kind_of):
        run = list(group)
        tokens = [entry for entry in run if isinstance(entry, Token)]
        merged.extend(_join(tokens) if tokens else run)
    return merged


def _kind_of(entry: Entry) -> tuple[str, int | None] | None:
    return (entry.kind, entry.call) if isinstance(entry, Token) else None


def _join(run: list[Token]) -> list[Token]:
    if len(run) < 2:
        return run
    logprobs = [logprob for token in run for logprob in token.logprobs or []]
    return [
        replace(
            run[0],
            ids=[token for part in run for token in part.ids],
            text="".join(part.text for part in run),
            logprobs=logprobs or None,
        )
    ]

"""The publisher: the one thread that writes tokens to Redis.

It takes whatever has come since its last write and sends it in one call. While Redis is slow or away, what comes for one
request grows into one larger entry, so that what waits is bounded by the requests' ``max_tokens``, and no engine ever waits.
"""

from __future__ import annotations

import logging
import random
import threading
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, TypeVar

from tasks.errors import BrokerUnavailable, JournalFailed
from tasks.journal.writer import Append
from tasks.messages.journal import End, Entry, Error, Release, Token, decode
from tasks.worker.attempts.attempt import Fenced, Flight

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tasks.journal.writer import Journal, Status

logger = logging.getLogger(__name__)

RETRY_MIN_S = 0.05
RETRY_MAX_S = 1.0

Answer = TypeVar("Answer")


class Publisher(threading.Thread):
    """Writes entries of flights in the order in which they were put; lands a flight when its outcome is written.

    Args:
        journal: where the entries go.
    """

    def __init__(self, journal: Journal) -> None:
        super().__init__(name="publisher", daemon=True)
        self._journal = journal
        self._pending: dict[Flight, list[Entry]] = {}
        self._changed = threading.Condition()
        self._stopping = False
        #: Calls to Redis and entries written, for the record and for tests that count.
        self.writes = 0
        self.entries = 0

    def put(self, items: Iterable[tuple[Flight, Entry]]) -> None:
        """Have these written; returns at once."""
        with self._changed:
            for flight, entry in items:
                self._pending.setdefault(flight, []).append(entry)
            self._changed.notify()

    def run(self) -> None:
        """Write until stopped; what is pending then is written first."""
        while (batch := self._take()) is not None:
            self._write(batch)

    def stop(self) -> None:
        """Write what is pending and end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self.is_alive():
            self.join(5)

    def _take(self) -> dict[Flight, list[Entry]] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._stopping)
            batch, self._pending = self._pending, {}
        return batch or None

    def _write(self, batch: dict[Flight, list[Entry]]) -> None:
        written: list[tuple[Flight, Entry, Append]] = []
        for flight, entries in batch.items():
            if flight.outcome is not None:
                continue
            for entry in _coalesce(entries):
                item = Append.of(flight.task_id, flight.next_n(), entry, flight.nonce)
                flight.items.append(item)
                written.append((flight, entry, item))
        if not written:
            return
        try:
            statuses = self._patiently(lambda: self._journal.append([item for _, _, item in written]))
        except JournalFailed as error:
            logger.exception("the journals of %d requests cannot be written", len(batch))
            for flight in batch:
                flight.land(flight.error(error.code, str(error)))
            return
        self.writes += 1
        self.entries += len(written)
        for (flight, entry, _), status in zip(written, statuses, strict=True):
            self._settle(flight, entry, status)
        for flight in {flight for (flight, _, _), status in zip(written, statuses, strict=True) if status == "gone"}:
            self._rewrite(flight)

    def _settle(self, flight: Flight, entry: Entry, status: Status) -> None:
        if status == "fenced":
            logger.warning("request %s was taken over or ended elsewhere; this run is dropped", flight.task_id)
            flight.land(Fenced())
        elif status == "ok" and isinstance(entry, End | Error | Release):
            flight.land(entry)

    def _rewrite(self, flight: Flight) -> None:
        """Redis has lost this journal (restarted without persistence, flushed): write it anew from memory."""
        logger.warning("the journal of request %s is gone from Redis; writing it anew", flight.task_id)
        last = flight.items[-1]
        self._patiently(lambda: self._journal.rewrite(flight.task_id, flight.items))
        status = self._patiently(lambda: self._journal.append([last]))[0]
        entry = decode(last.payload)
        if entry is not None:
            self._settle(flight, entry, status)

    def _patiently(self, write: Callable[[], Answer]) -> Answer:
        """Do it until Redis has answered: an outage delays a request's end and never fails it."""
        pause_s = RETRY_MIN_S
        while True:
            try:
                return write()
            except BrokerUnavailable as error:
                if self._stopping:
                    raise JournalFailed(f"gave up while stopping: {error}") from error
                logger.warning("%s; trying again", error)
            with self._changed:
                self._changed.wait_for(lambda: self._stopping, pause_s * random.uniform(0.5, 1.5))
            pause_s = min(pause_s * 2, RETRY_MAX_S)


def _coalesce(entries: list[Entry]) -> list[Entry]:
    """The entries with each run of tokens of one kind as one."""
    merged: list[Entry] = []
    for _, group in groupby(entries, _kind_of):
        run = list(group)
        tokens = [entry for entry in run if isinstance(entry, Token)]
        merged.extend(_join(tokens) if tokens else run)
    return merged


def _kind_of(entry: Entry) -> str | None:
    return entry.kind if isinstance(entry, Token) else None


def _join(run: list[Token]) -> list[Token]:
    if len(run) < 2:
        return run
    logprobs = [each for token in run for each in token.logprobs or []]
    return [
        replace(
            run[0],
            ids=[token for each in run for token in each.ids],
            text="".join(each.text for each in run),
            logprobs=logprobs or None,
        )
    ]

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
from tasks.worker.attempts.attempt import Attempt, Fenced

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
    """What is written of one attempt at once. ``known`` counts the items that it had before."""

    attempt: Attempt
    entries: list[Entry]
    known: int
    items: list[Append] = field(default_factory=list)

    def note(self) -> None:
        """Make the entries items of the journal."""
        self.entries = _coalesce(self.entries)
        self.items = [self.attempt.note(entry) for entry in self.entries]


class Publisher(threading.Thread):
    """Writes entries of attempts in the order in which they were put; finishes an attempt when its outcome is written.

    Args:
        journal: where the entries go.
        identity: this worker's ``node#boot``.
    """

    def __init__(self, journal: Journal, identity: str = "") -> None:
        super().__init__(name="publisher", daemon=True)
        self._journal = journal
        self._identity = identity
        self._pending: dict[Attempt, list[Entry]] = {}
        self._open: set[Attempt] = set()
        self._doubted: set[Attempt] = set()
        self._changed = threading.Condition()
        self._stopping = False
        #: Calls to Redis and entries written, for the record and for tests that count.
        self.writes = 0
        self.entries = 0

    def open(self, attempt: Attempt, instead_of: Attempt | None = None) -> None:
        """Look after the journal of an attempt that this worker has claimed, and no more after that of an earlier attempt."""
        with self._changed:
            if instead_of is not None:
                self._open.discard(instead_of)
            self._open.add(attempt)

    def close(self, attempt: Attempt) -> None:
        """Look after its journal no more: whatever follows from its end has been done."""
        with self._changed:
            self._open.discard(attempt)

    def doubt(self) -> None:
        """Redis may have come back older than it was: write what it lacks of the open attempts' journals."""
        with self._changed:
            self._doubted |= {attempt for attempt in self._open if not attempt.is_recorded}
            self._changed.notify()

    def put(self, items: Iterable[tuple[Attempt, Entry]]) -> None:
        """Have these written; returns at once."""
        with self._changed:
            for attempt, entry in items:
                if attempt.is_recorded:
                    attempt.settle(entry)
                else:
                    self._pending.setdefault(attempt, []).append(entry)
            self._changed.notify()

    def run(self) -> None:
        """Write until stopped; what is pending then is written first."""
        while (work := self._take()) is not None:
            batch, doubted = work
            for attempt in doubted:
                self._try(_Writing(attempt, [], len(attempt.items)), partial(self._fill, attempt))
            if batch:
                self._write(batch)

    def stop(self) -> None:
        """Write what is pending and end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self.is_alive():
            self.join(5)

    def _take(self) -> tuple[dict[Attempt, list[Entry]], set[Attempt]] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._doubted or self._stopping)
            batch, self._pending = self._pending, {}
            doubted, self._doubted = self._doubted, set()
        return (batch, doubted) if batch or doubted else None

    def _write(self, batch: dict[Attempt, list[Entry]]) -> None:
        writings = [_Writing(attempt, entries, len(attempt.items)) for attempt, entries in batch.items()]
        writings = [
            waiting for waiting in writings if waiting.attempt.outcome is None and self._try(waiting, waiting.note)
        ]
        if len(writings) == 1 or not self._try_together(writings):
            for writing in writings:
                self._try(writing, partial(self._send, [writing]))

    def _try_together(self, writings: list[_Writing]) -> bool:
        try:
            self._send(writings)
        except BrokerUnavailable:
            for writing in writings:
                self._hand_back(writing.attempt)
        except Exception:
            logger.exception("%d journals cannot be written together; trying them one by one", len(writings))
            return False
        return True

    def _try(self, writing: _Writing, write: Callable[[], None]) -> bool:
        """Do it; whatever it raises ends this one attempt, and never this thread."""
        try:
            write()
        except BrokerUnavailable:
            self._hand_back(writing.attempt)
        except Exception as error:
            logger.exception("the journal of request %s cannot be written", writing.attempt.task_id)
            self._fail(writing, error)
            return False
        return True

    def _hand_back(self, attempt: Attempt) -> None:
        """This worker ends while Redis is away: another one goes on from what the journal has."""
        attempt.finish(attempt.release(crashed=False))

    def _send(self, writings: list[_Writing]) -> None:
        """Write these, and finish the attempts whose outcome is among them. It may be repeated."""
        items = [item for writing in writings for item in writing.items]
        if not items:
            return
        statuses = iter(self._patiently(lambda: self._journal.append(items)))
        self.writes += 1
        self.entries += len(items)
        for writing in writings:
            self._settle(writing, [next(statuses) for _ in writing.items])

    def _settle(self, writing: _Writing, statuses: list[Status]) -> None:
        attempt = writing.attempt
        if "gone" in statuses or "behind" in statuses:
            logger.warning("Redis has lost a part of the journal of request %s; writing it again", attempt.task_id)
            self._fill(attempt)
        elif "fenced" in statuses:
            self._lose(attempt)
        elif isinstance(writing.entries[-1], End | Error | Release):
            attempt.finish(writing.entries[-1])

    def _fill(self, attempt: Attempt) -> None:
        """Write from memory what Redis has lost: it came back older than it was, or without its data."""
        if isinstance(attempt.outcome, Fenced | Release):
            return
        if not self._patiently(partial(self._filled, attempt)):
            self._lose(attempt)
            return
        last = decode(attempt.items[-1].payload)
        if isinstance(last, End | Error | Release):
            attempt.finish(last)

    def _filled(self, attempt: Attempt) -> bool:
        return self._journal.fill(attempt.task_id, attempt.items, self._identity, attempt.held)

    def _lose(self, attempt: Attempt) -> None:
        logger.warning("request %s was taken over or ended elsewhere; this run is dropped", attempt.task_id)
        attempt.finish(Fenced())

    def _fail(self, writing: _Writing, error: Exception) -> None:
        """End an attempt with an error, and its journal too where that takes one."""
        attempt = writing.attempt
        if not isinstance(error, GenerationError):
            error = GenerationError(f"the request's journal could not be written ({type(error).__name__})")
        outcome = attempt.error(error.code, str(error))
        del attempt.items[writing.known :]
        attempt.note(outcome)
        with suppress(Exception):
            self._patiently(partial(self._filled, attempt))
        attempt.finish(outcome)

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

"""The publisher writes tokens to Redis, one call at a time, for all requests of the worker.

A call has whatever has come since the last one. While Redis is slow or away, what comes for one request grows into one larger
entry, so that what waits is bounded by the requests' ``max_tokens``, and no engine ever waits.
"""

from __future__ import annotations

import logging
import random
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from tasks.errors import BrokerUnavailable, GenerationError
from tasks.messages.journal import End, Entry, Error, Release, decode
from tasks.worker.attempts.attempt import Attempt, Fenced
from tasks.worker.attempts.outbox import Outbox
from tasks.worker.attempts.writing import Writing, noted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from tasks.journal.writer import Journal, Status

logger = logging.getLogger(__name__)

RETRY_MIN_S = 0.05
RETRY_MAX_S = 1.0
#: The time that a request's start waits for its first token, to go out with it: it needs no call of its own.
HOLD_S = 0.05

Answer = TypeVar("Answer")


class Publisher(threading.Thread):
    """Writes entries of attempts in the order in which they were put; finishes an attempt when its outcome is written.

    An engine's reader writes the engine's events itself, unless another thread writes already: a hand-over to this thread costs
    about as much as the call. It tries once. This thread does all else: what came meanwhile, what has to be tried again, and
    what Redis has lost.

    Args:
        journal: where the entries go.
        identity: this worker's ``node#boot``.
    """

    def __init__(self, journal: Journal, identity: str = "") -> None:
        super().__init__(name="publisher", daemon=True)
        self._journal = journal
        self._identity = identity
        self._outbox = Outbox()
        #: The entries that an engine's reader could not write; they come before the pending ones.
        self._left: list[Writing] = []
        self._open: set[Attempt] = set()
        self._doubted: set[Attempt] = set()
        self._changed = threading.Condition()
        #: Whether a thread writes just now.
        self._is_writing = False
        #: Whether this thread looks for held starts by itself.
        self._is_looking = False
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
            if not self._is_looking:
                self._changed.notify()

    def close(self, attempt: Attempt) -> None:
        """Look after its journal no more: all that follows from its end has been done."""
        with self._changed:
            self._open.discard(attempt)

    def doubt(self) -> None:
        """Write the entries of the open attempts' journals that Redis lacks: it may have come back older than it was."""
        with self._changed:
            self._doubted |= {attempt for attempt in self._open if not attempt.is_recorded}
            self._changed.notify()

    def restore(self, attempt: Attempt) -> bool:
        """Write the entries that Redis has lost of a journal that has ended, on the caller's thread.

        ``False`` if the request is another worker's now. A journal that was deleted on purpose stays deleted.

        Raises:
            GenerationError: the journal cannot be written.
        """
        return self._patiently(lambda: bool(self._journal.collected([attempt.task_id])) or self._filled(attempt))

    def put(self, items: Iterable[tuple[Attempt, Entry]]) -> None:
        """Have these written; returns at once."""
        with self._changed:
            self._outbox.add(items)
            self._outbox.is_urgent = True
            self._changed.notify()

    def write(self, items: Sequence[tuple[Attempt, Entry]]) -> None:
        """Write an engine's events, or have them written. A request's start is held until there is more of some request."""
        with self._changed:
            self._outbox.add(items)
            self._outbox.look(is_last=self._stopping)
            leads = self._outbox.is_urgent and not (self._is_writing or self._left or self._doubted or self._stopping)
            if not leads and (self._outbox.is_urgent or not self._is_looking):
                self._changed.notify()
            if not leads or not self._outbox:
                return
            batch = self._outbox.take()
            self._is_writing = True
        left: list[Writing] = []
        try:
            left = self._write_once(batch)
        finally:
            with self._changed:
                self._is_writing = False
                self._left = left
                if left or self._outbox.is_urgent or self._doubted or self._stopping:
                    self._changed.notify()

    def run(self) -> None:
        """Write until :meth:`stop`, and then the pending entries."""
        while self._wait():
            with self._changed:
                left, self._left = self._left, []
                doubted, self._doubted = self._doubted, set()
                batch = self._outbox.take()
            try:
                self._write(left)
                for attempt in doubted:
                    self._try(Writing(attempt), partial(self._fill, attempt))
                self._write(noted(batch))
            finally:
                with self._changed:
                    self._is_writing = False

    def stop(self) -> None:
        """Write the pending entries, and end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self.is_alive():
            self.join(5)

    def _wait(self) -> bool:
        """Wait until this thread is to write; ``False`` once there is nothing left to write, and nothing will come."""
        with self._changed:
            while self._is_writing or not (self._left or self._doubted or self._outbox.is_urgent or self._stopping):
                self._is_looking = bool(self._open or self._outbox)
                is_told = self._changed.wait(HOLD_S if self._is_looking else None)
                self._outbox.look(is_last=self._stopping)
                if not is_told and self._outbox:
                    self._outbox.is_urgent = True
            self._is_looking = True
            self._outbox.look(is_last=self._stopping)
            if not (self._left or self._doubted or self._outbox):
                return False
            self._is_writing = True
            return True

    def _write_once(self, batch: dict[Attempt, list[Entry]]) -> list[Writing]:
        """Write this in one call, without a wait for a Redis that is away; return the entries for the publisher's thread."""
        writings = noted(batch)
        sound = [writing for writing in writings if writing.error is None]
        left = [writing for writing in writings if writing.error is not None]
        try:
            statuses = self._append(sound)
        except Exception:  # it is logged, or raised, where it is tried again  # noqa: BLE001
            return writings
        return left + [writing for writing in sound if not writing.succeeded([next(statuses) for _ in writing.items])]

    def _write(self, writings: list[Writing]) -> None:
        for writing in writings:
            if writing.error is not None:
                self._fail(writing, writing.error)
        writings = [writing for writing in writings if writing.error is None]
        if len(writings) == 1 or not self._try_together(writings):
            for writing in writings:
                self._try(writing, partial(self._send, [writing]))

    def _try_together(self, writings: list[Writing]) -> bool:
        try:
            self._send(writings)
        except BrokerUnavailable:
            for writing in writings:
                self._hand_back(writing.attempt)
        except Exception:
            logger.exception("%d journals cannot be written together; trying them one by one", len(writings))
            return False
        return True

    def _try(self, writing: Writing, write: Callable[[], None]) -> None:
        """Run it. An exception ends this one attempt, and never this thread."""
        try:
            write()
        except BrokerUnavailable:
            self._hand_back(writing.attempt)
        except Exception as error:  # it is logged there  # noqa: BLE001
            self._fail(writing, error)

    def _hand_back(self, attempt: Attempt) -> None:
        """Give attempts up, since this worker ends while Redis is away: another one continues from their journals."""
        attempt.finish(attempt.release(crashed=False))

    def _send(self, writings: list[Writing]) -> None:
        """Write these, and finish the attempts whose outcome is among them. It may be repeated."""
        if not writings:
            return
        statuses = self._patiently(partial(self._append, writings))
        for writing in writings:
            self._check(writing, [next(statuses) for _ in writing.items])

    def _append(self, writings: list[Writing]) -> Iterator[Status]:
        items = [item for writing in writings for item in writing.items]
        statuses = self._journal.append(items)
        self.writes += 1
        self.entries += len(items)
        return iter(statuses)

    def _check(self, writing: Writing, statuses: list[Status]) -> None:
        attempt = writing.attempt
        if "gone" in statuses or "behind" in statuses:
            logger.warning("Redis has lost a part of the journal of request %s; writing it again", attempt.task_id)
            self._fill(attempt)
        elif not writing.succeeded(statuses):
            self._lose(attempt)

    def _fill(self, attempt: Attempt) -> None:
        """Write from memory the entries that Redis has lost: it came back older than it was, or without its data."""
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

    def _fail(self, writing: Writing, error: Exception) -> None:
        """End an attempt with an error, and its journal too where that takes one."""
        attempt = writing.attempt
        logger.error("the journal of request %s cannot be written", attempt.task_id, exc_info=error)
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

"""Entries that are to be written, and whether they may wait."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tasks.messages.journal import End, Error, Start, Token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tasks.messages.journal import Entry
    from tasks.worker.attempts.attempt import Attempt

#: How long tokens that nobody reads as they come are held back.
QUIET_S = 0.5


class Outbox:
    """Keeps the entries of each attempt in their order. Its owner sees to it that one thread calls it at a time.

    A start waits for its first token, to go out with it. Tokens of batch work wait if nobody listened to the last ones of their
    request: worker and Redis take processor time for each write, and all rows of an engine's step wait for that.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._pending: dict[Attempt, list[Entry]] = {}
        self._quiet: dict[Attempt, list[Entry]] = {}
        self._due_at = 0.0
        #: Whether something is pending that does not wait.
        self.is_urgent = False

    def __bool__(self) -> bool:
        """Whether something is pending, be it only a start."""
        return bool(self._pending)

    def add(self, items: Iterable[tuple[Attempt, Entry]]) -> None:
        """Have these written. What ends a request whose journal has its end already is settled."""
        for attempt, entry in items:
            if attempt.is_recorded:
                attempt.settle(entry)
            elif attempt not in self._pending and _is_quiet(attempt, entry):
                if not self._quiet:
                    self._due_at = self._clock() + QUIET_S
                self._quiet.setdefault(attempt, []).append(entry)
            else:
                attempt.is_ending = attempt.is_ending or isinstance(entry, End | Error)
                self._pending.setdefault(attempt, self._quiet.pop(attempt, [])).append(entry)
                self.is_urgent = self.is_urgent or not isinstance(entry, Start)

    def look(self, *, is_last: bool = False) -> None:
        """Have tokens wait no more that were held back for long enough, or all if it is the last look."""
        if self._quiet and (is_last or self._clock() >= self._due_at):
            self._pending.update(self._quiet)
            self._quiet = {}
            self.is_urgent = True

    def take(self) -> dict[Attempt, list[Entry]]:
        """All that is pending, which is written now."""
        batch, self._pending, self.is_urgent = self._pending, {}, False
        return batch


def _is_quiet(attempt: Attempt, entry: Entry) -> bool:
    return isinstance(entry, Token) and attempt.gives_way and attempt.is_heard is False

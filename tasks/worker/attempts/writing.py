"""One write of an attempt's entries."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING

from tasks.messages.journal import End, Entry, Error, Release, Token

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.journal.items import Append
    from tasks.journal.writer import Status
    from tasks.worker.attempts.attempt import Attempt


@dataclass(slots=True, eq=False)
class Writing:
    """Entries of one attempt, and the items of its journal that they become.

    Attributes:
        known: how many items the attempt had before.
        error: why its entries cannot be items.
    """

    attempt: Attempt
    entries: list[Entry] = field(default_factory=list)
    known: int = field(init=False)
    items: list[Append] = field(default_factory=list, init=False)
    error: Exception | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.known = len(self.attempt.items)

    def note(self) -> None:
        """Make the entries items of the journal."""
        self.entries = coalesced(self.entries)
        try:
            self.items = [self.attempt.note(entry) for entry in self.entries]
        except Exception as error:  # whatever it is, it ends this one attempt  # noqa: BLE001
            self.error = error

    def succeeded(self, statuses: Sequence[Status]) -> bool:
        """Whether Redis has the items, by their statuses: then an outcome among them is the attempt's."""
        if any(status not in ("ok", "heard") for status in statuses):
            return False
        if any(isinstance(entry, Token) for entry in self.entries):
            self.attempt.is_heard = "heard" in statuses
        last = self.entries[-1]
        if isinstance(last, End | Error | Release):
            self.attempt.finish(last)
        return True


def noted(batch: dict[Attempt, list[Entry]]) -> list[Writing]:
    """Items of the journals of those that are not lost."""
    writings = [Writing(attempt, entries) for attempt, entries in batch.items() if attempt.outcome is None]
    for writing in writings:
        writing.note()
    return writings


def coalesced(entries: list[Entry]) -> list[Entry]:
    """The entries with each run of tokens of one kind, and of one call, as one."""
    if len(entries) < 2:
        return entries
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

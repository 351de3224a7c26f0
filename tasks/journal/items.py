"""The entries of a journal as a worker writes them, and as it keeps them to write them again."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha1
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from tasks.messages.journal import End, Entry, Error, Release, encode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Closes: TypeAlias = Literal["", "attempt", "journal"]

#: Bytes in one writing, about: Redis does nothing else meanwhile.
PAGE_BYTES = 256 * 1024


class Asks(NamedTuple):
    """A digest of a request (:mod:`tasks.broker.message.fingerprint`; empty: any), and the time for which it is kept."""

    fingerprint: str
    kept_s: int


class Held(NamedTuple):
    """A message that a worker holds: its delivery tag, and its text as it is kept beside it."""

    tag: str
    text: str


@dataclass(slots=True)
class Append:
    """One entry to append, as ``<attempt>-<n>``.

    ``payload`` is the entry's JSON. ``closes`` says that nothing may follow: in this attempt (a release), or in the
    journal (an end or error). With the ``nonce`` of its claim an item is fenced even where Redis lost the journal and
    another worker claimed the same attempt again.

    Entry ``n`` of an attempt follows entry ``n - 1`` and nothing else.
    """

    task_id: str
    attempt: int
    n: int
    payload: str
    closes: Closes = ""
    nonce: str = ""

    @property
    def entry_id(self) -> str:
        """Its id in the stream."""
        return f"{self.attempt}-{self.n}"

    @classmethod
    def of(cls, task_id: str, n: int, entry: Entry, nonce: str = "") -> Append:
        """Return the entry as an item; its attempt, and the part of the journal that it closes, follow from it."""
        closes: Closes = (
            "journal" if isinstance(entry, End | Error) else "attempt" if isinstance(entry, Release) else ""
        )
        return cls(task_id, entry.attempt, n, encode(entry), closes, nonce)

    @classmethod
    def as_written(cls, task_id: str, entry_id: str, payload: bytes) -> Append:
        """An entry that the stream has under this id."""
        return cls(task_id, *order(entry_id), payload.decode(errors="replace"))

    @property
    def digest(self) -> str:
        """SHA-1 of the payload: tells two entries of one id apart."""
        return sha1(self.payload.encode(), usedforsecurity=False).hexdigest()


def pages(items: Sequence[Append]) -> Iterator[Sequence[Append]]:
    """The items in runs that fit into one call; one that does not is a run of its own."""
    begin, size_bytes = 0, 0
    for place, item in enumerate(items):
        size_bytes += len(item.payload)
        if size_bytes > PAGE_BYTES and place > begin:
            yield items[begin:place]
            begin, size_bytes = place, len(item.payload)
    if begin < len(items):
        yield items[begin:]


def order(entry_id: str) -> tuple[int, int]:
    """Return the key by which entries are ordered: attempt and number."""
    attempt, _, n = entry_id.partition("-")
    return int(attempt), int(n)

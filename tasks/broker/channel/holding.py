"""A worker's side of its channels: the room for messages, and the end of those that it holds."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from tasks.server import keys

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tasks.server.pipeline import AutoPipeline

logger = logging.getLogger(__name__)

#: The transport option of a worker's application that has it. Kombu hands the options to each channel.
OPTION = "holding"


class Room(Protocol):
    """Says which queues may be asked for a message now."""

    def has_room(self, queue: str, *, urgent: bool = False) -> bool:
        """Whether one more message of this queue could be run at once; ``urgent``: one of a higher priority than the lowest."""

    def free(self, queue: str) -> int:
        """Return how many more messages of this queue could run at once."""

    def in_use(self) -> int:
        """Return how many run."""

    @property
    def aside_lists(self) -> Callable[[str], tuple[Sequence[str], Sequence[str]]]:
        """Names the models whose aside lists of a queue are read: before and after the queue's own lists."""


class Lanes(Protocol):
    """Says from which lanes of workers requests are taken (:mod:`tasks.broker.queues.lanes`)."""

    def beside(self, queue: str, priority: int, *, own: bool = False) -> tuple[Sequence[str], Sequence[str]]:
        """The lanes before and after a queue's own list of one priority; with ``own`` without those of other workers."""

    def took(self, list_name: str) -> None:
        """A request was taken from this list."""


class Claims(Protocol):
    """Claims requests of this worker's as their messages are fetched."""

    def terms(self, queue: str) -> Sequence[str | int]:
        """Return the arguments about claims for the script that fetches, or :data:`NO_CLAIMS`."""

    def note(self, task_id: str, delivery: str, payload: bytes, queued_ms: bytes) -> None:
        """A request was claimed."""


class Journals(Protocol):
    """Knows how the journals of this worker's requests have ended. Asked on the thread that stores a request's result."""

    def last_id(self, task_id: str) -> str:
        """The id of the entry with which this worker has ended the request; empty where another one has."""

    def restore(self, task_id: str) -> bool:
        """Write the entries of the journal that Redis has lost; ``False`` if the request is another worker's now."""


#: The arguments about claims of a worker that leaves claims to its requests' threads.
NO_CLAIMS = ("", "", 0, "", "", "", "", "")


def log_refusal(task_id: str | None, why: str) -> None:
    """Log a message that nobody can read, in a process without a worker."""
    logger.error("message %s was dropped: %s", task_id, why)


@dataclass(slots=True, eq=False, repr=False)  # kombu finds its pools by the repr of the options, so it must not change
class Holding:
    """One object for all channels, and the result backend, of a worker's application.

    A channel of a producer, or of a worker of another pool, has one of its own that says nothing.
    """

    #: ``node#boot`` of the worker.
    identity: str = ""
    #: The worker's room; ``None``: for everything.
    room: Room | None = None
    #: The lanes that the worker takes from; ``None``: none.
    lanes: Lanes | None = None
    #: Claims requests as they are fetched; ``None``: none is claimed then.
    claims: Claims | None = None
    #: Where the worker's threads call scripts together; ``None``: every call has its own connection.
    scripts: AutoPipeline | None = None
    #: Is told of a message that kombu cannot read: its id, if it has one, and the fault.
    refuse: Callable[[str | None, str], None] = log_refusal
    #: Knows how journals have ended; ``None``: results are stored without a look at journals.
    journals: Journals | None = None
    #: Messages that were fetched so far.
    received: int = 0
    #: Set once nothing runs any more: kombu itself gives back the remaining messages.
    stopping: bool = False
    #: The models that messages, by their delivery tags, are set aside for when they are given back.
    aside: dict[str, str] = field(default_factory=dict)
    #: Delivery tags of messages that were forgotten together with their results being stored (:mod:`tasks.broker.results`).
    answered: set[str] = field(default_factory=set)
    #: Delivery tags of messages that were noted by the very script that took them.
    taken: set[str] = field(default_factory=set)

    def set_aside(self, delivery_tag: str, key: str) -> None:
        """Have a message go to the aside list of this engine's key when it is given back."""
        self.aside[delivery_tag] = key

    def transport_options(self) -> dict[str, Any]:
        """Return kombu's options for the worker's application: this object, and keys of its own for unacknowledged messages."""
        return {
            OPTION: self,
            "unacked_key": keys.unacked(self.identity),
            "unacked_index_key": keys.unacked_index(self.identity),
        }


def holding_of(transport_options: Mapping[str, Any]) -> Holding | None:
    """Return the worker's part of an application, from its ``broker_transport_options``; ``None`` where it has none here."""
    found: Holding | None = transport_options.get(OPTION)
    return found

"""A channel, and the commands that read the entries that it announces, for one reader."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tasks.errors import GenerationError

NEVER = float("inf")

Command: TypeAlias = tuple[str | int, ...]


class Watch(ABC):
    """One reader's place. All but :meth:`close` and :meth:`read_again` is called by the thread of its subscription.

    Args:
        channel: where new things are announced.
        about: whose place it is, as an error begins.

    Attributes:
        asked: somebody called :meth:`read_again`.
        due_at: when to read, on the monotonic clock.
        began_at: when the watch was made.
        reached_at: when Redis last answered a read; ``None`` before the first time.
        delivered_at: when something was last handed over.
    """

    #: How many of the commands of the last :meth:`ask` have to succeed; the replies of the rest may be errors.
    essential: int = 1

    def __init__(self, channel: str, about: str) -> None:
        self.channel = channel.encode()
        self.about = about
        self.asked = False
        self.due_at = NEVER
        self.began_at = time.monotonic()
        self.reached_at: float | None = None
        self.delivered_at = 0.0
        self._order: Callable[[str, Watch], None] | None = None

    def belong(self, order: Callable[[str, Watch], None]) -> None:
        """Take the way in which ``close`` and ``read`` reach the thread."""
        self._order = order

    def close(self) -> None:
        """Stop listening."""
        if self._order is not None:
            self._order("close", self)

    def read_again(self) -> None:
        """Read now, whatever the channel says."""
        if self._order is not None:
            self._order("read", self)

    @abstractmethod
    def decode(self, payload: bytes) -> Any:
        """Decode a publication, for all watches of the channel; ``None`` is for nobody."""

    @abstractmethod
    def hear(self, news: Any, now: float) -> None:
        """Take a publication. ``due_at`` is set to ``now`` where the rest has to be read at once."""

    @abstractmethod
    def ask(self, now: float) -> list[Command]:
        """The commands of one read."""

    @abstractmethod
    def take(self, replies: Sequence[Any], now: float) -> None:
        """Take their replies, as Redis gives them, and set ``due_at``."""

    @abstractmethod
    def forget(self) -> None:
        """Note that the connection was lost: entries that were read may not be there any more."""

    @abstractmethod
    def trouble(self, problem: str, now: float) -> None:
        """Redis is out of reach for now."""

    @abstractmethod
    def end(self, error: GenerationError) -> None:
        """Nothing will be read any more."""

    @property
    def is_done(self) -> bool:
        """Whether no news can say anything new."""
        return False

    @property
    def can_wait(self) -> bool:
        """Whether the publications so far may be handed over a little later, with the next ones."""
        return False

    @abstractmethod
    def deliver(self) -> bool:
        """Hand over the publications that came together; return whether there were any."""

"""The lock of a worker's engines, and a count of the changes under it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

#: An action that a decision asks for: it runs once the lock is released.
Action: TypeAlias = Callable[[], None]


class Changes:
    """A lock for decisions, and a way to wait for the next change.

    Decisions are made with the lock held; files, processes, pipes and Redis come after it is released. The lock is not
    reentrant, so a callback that is called with it held by mistake shows at once.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition(threading.Lock())
        self._owner: int | None = None
        #: How many changes there were so far.
        self.count = 0

    @property
    def held(self) -> bool:
        """Whether the calling thread holds the lock."""
        return self._owner == threading.get_ident()

    def notify(self) -> None:
        """Count a change, and wake the threads that wait for one. With the lock held."""
        self.count += 1
        self._condition.notify_all()

    @contextmanager
    def deciding(self) -> Iterator[list[Action]]:
        """The lock, and a list of actions. They run once the lock is released, even where the decision ends with an error."""
        actions: list[Action] = []
        try:
            with self:
                yield actions
        finally:
            for action in actions:
                action()

    def wait_for_change(self, seen: int, timeout_s: float) -> None:
        """Wait until there were more changes than ``seen``, without the lock held; at most ``timeout_s``."""
        with self._condition:
            self._condition.wait_for(lambda: self.count != seen, timeout_s)

    def __enter__(self) -> Self:
        self._condition.acquire()
        self._owner = threading.get_ident()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._owner = None
        self._condition.release()

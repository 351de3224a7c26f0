"""Cancel marks of the requests that run on a worker: it may have missed the broadcast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tasks.registry import Beat


class CancelMarks(Protocol):
    """Says which requests carry a cancel mark, as :class:`tasks.journal.writer.Journal` does."""

    def cancelled(self, task_ids: Iterable[str]) -> set[str]:
        """Those of the requests that carry the mark."""


class CancelWatch:
    """Looks for the marks after each beat, in one command; sends nothing while nothing runs.

    Args:
        marks: has the cancel marks.
        running: the ids of the requests that run now.
        on_cancelled: called with those of them that carry a mark, once in each look that finds some.
    """

    def __init__(
        self, marks: CancelMarks, running: Callable[[], list[str]], on_cancelled: Callable[[set[str]], None]
    ) -> None:
        self._marks = marks
        self._running = running
        self._on_cancelled = on_cancelled

    def look(self, _beat: Beat) -> None:
        """See which of the running requests carry a mark.

        Raises:
            BrokerUnavailable: Redis cannot be reached or refuses for now.
        """
        running = self._running()
        marked = self._marks.cancelled(running) if running else set()
        if marked:
            self._on_cancelled(marked)

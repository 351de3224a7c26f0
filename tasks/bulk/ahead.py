"""Lines that were read and not sent yet, in the order in which they go out: those that begin alike are next to each other."""

from __future__ import annotations

from collections import defaultdict, deque
from itertools import islice
from typing import TYPE_CHECKING

from tasks.bulk.line import Line
from tasks.errors import GenerationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tasks.bulk.line import BadLine

#: The characters of prompts that are read ahead.
MOST_CHARACTERS = 16 * 2**20


class Ahead:
    """Reads ahead, and sorts the lines.

    A queue is first in, first out, and an engine keeps what it computed of a prompt for the next one that begins alike. So lines
    with the same instructions are sent one after another.

    Args:
        lines: all that are still to be sent.
        queue_of: the queue of a line.
        most_lines: so many lines are read ahead.
    """

    def __init__(self, lines: Iterator[Line | BadLine], queue_of: Callable[[Line], str], most_lines: int) -> None:
        self._lines = lines
        self._most_lines = most_lines
        self._queue_of = queue_of
        self._ready: dict[str, deque[Line]] = defaultdict(deque)
        self._bad: list[BadLine] = []
        self.exhausted = False

    def read(self) -> list[BadLine]:
        """Read on once all that was read has been sent; the lines that cannot be."""
        if not self.exhausted and not any(self._ready.values()):
            self._read_page()
        bad, self._bad = self._bad, []
        return bad

    @property
    def queues(self) -> list[str]:
        """The queues for which there are lines."""
        return [queue for queue, lines in self._ready.items() if lines]

    def take(self, queue: str, most: int) -> list[Line]:
        """At most so many lines of a queue."""
        ready = self._ready[queue]
        return [ready.popleft() for _ in range(min(most, len(ready)))]

    def put_back(self, line: Line) -> None:
        """Have a line be sent again, before the others."""
        self._ready[self._queue_of(line)].appendleft(line)

    def rest(self, most: int) -> list[Line | BadLine]:
        """At most so many of the lines that are left and are not sent any more."""
        found: list[Line | BadLine] = [*self._bad, *(line for queue in self.queues for line in self.take(queue, most))]
        self._bad = []
        found += islice(self._lines, max(0, most - len(found)))
        self.exhausted = len(found) < most
        return found

    def _read_page(self) -> None:
        page: list[Line] = []
        characters = 0
        while len(page) < self._most_lines and characters < MOST_CHARACTERS:
            line = next(self._lines, None)
            if line is None:
                self.exhausted = True
                break
            if isinstance(line, Line):
                page.append(line)
                characters += len(str(line.prompt))
            else:
                self._bad.append(line)
                if len(self._bad) >= self._most_lines:
                    break
        page.sort(key=lambda line: (str(line.values.get("model")), line.head))
        for line in page:
            try:
                self._ready[self._queue_of(line)].append(line)
            except GenerationError as error:  # nobody has its model
                self._bad.append(line.refused(error))

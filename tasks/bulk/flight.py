"""The requests of a bulk job that are in Redis now, and how often each line was sent."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tasks.bulk.line import Line


class Flight:
    """Knows the line and the queue of each request.

    A request's id follows from the job, the line and the try, so that a driver that was killed finds its requests again.

    Args:
        job_id: the job.
        most_tries: how often a line is sent at most.
    """

    def __init__(self, job_id: str, most_tries: int) -> None:
        self._job_id = job_id
        self._most_tries = most_tries
        self._lines: dict[str, tuple[str, Line]] = {}
        self._tries: dict[int, int] = {}
        self._by_queue: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._lines)

    def task_id(self, number: int) -> str:
        """The id of the request of a line, at its present try."""
        tries = self._tries.get(number, 0)
        return f"bulk-{self._job_id}-{number}" + (f"-r{tries}" if tries else "")

    def add(self, line: Line, queue: str) -> str:
        """A line is being sent; its request's id."""
        task_id = self.task_id(line.number)
        self._lines[task_id] = (queue, line)
        self._by_queue[queue] += 1
        return task_id

    def remove(self, task_id: str) -> Line:
        """A request is in Redis no more."""
        queue, line = self._lines.pop(task_id)
        self._by_queue[queue] -= 1
        return line

    def may_retry(self, line: Line) -> bool:
        """Count a try that failed; whether another may follow."""
        tries = self._tries.get(line.number, 0) + 1
        if tries >= self._most_tries:
            return False
        self._tries[line.number] = tries
        return True

    def finish(self, number: int) -> None:
        """A line is done: its tries do not matter any more."""
        self._tries.pop(number, None)

    def in_queue(self, queue: str) -> int:
        """Return how many requests of this queue are in Redis."""
        return self._by_queue[queue]

    @property
    def task_ids(self) -> list[str]:
        """The requests' ids, the oldest first."""
        return list(self._lines)

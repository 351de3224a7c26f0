"""One thread of this worker at a time has a request: a message that is delivered twice is computed once."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Exclusive:
    """Remembers which requests the threads of this worker have in hand."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._changed = threading.Condition()

    @contextmanager
    def having(self, task_id: str) -> Iterator[None]:
        """Have the request alone; wait until another thread that has it is done with it."""
        with self._changed:
            self._changed.wait_for(lambda: task_id not in self._taken)
            self._taken.add(task_id)
        try:
            yield
        finally:
            with self._changed:
                self._taken.discard(task_id)
                self._changed.notify_all()

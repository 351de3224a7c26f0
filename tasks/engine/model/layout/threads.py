"""Threads that compute parts of numpy's products, beside the thread that asks for them."""

from __future__ import annotations

from queue import SimpleQueue
from threading import Lock, Thread
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import ThreadpoolController

if TYPE_CHECKING:
    from collections.abc import Callable


def limit_blas() -> None:
    """Give numpy's own BLAS one thread for good: each of the threads here calls it, and would wait for those of the others."""
    ThreadpoolController().select(prefix="libscipy_openblas").limit(limits=1)


class HostThreads:
    """Threads that share work out among themselves and their caller.

    There is a part for each thread, and a free thread takes the next one. So the caller computes all parts while its
    helpers do not run: other processes may want the cores, too. numpy computes without the interpreter's lock. Twice as many
    parts were no quicker: each costs some calls.

    Args:
        count: how many threads compute, the caller's among them.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._helpers: list[_Helper] = []

    def start(self) -> None:
        """Start the helpers. Before that, the caller computes alone."""
        self._helpers = [_Helper() for _ in range(self._count - 1)]
        for helper in self._helpers:
            helper.start()

    def share(self, compute: Callable[[int, int], None], size: int, parts: int | None = None) -> None:
        """Call ``compute(start, end)`` for parts of ``range(size)``, by any thread and in any order, and return after all.

        ``parts`` says how many, where they differ in what they cost; else there is one for each thread.

        Raises:
            Exception: what ``compute`` has raised.
        """
        count = min(size, parts or 1 + len(self._helpers))
        if count == 1 or not self._helpers:
            compute(0, size)
            return
        job = _Job(compute, size, count)
        for helper in self._helpers:
            helper.give(job)
        job.work()
        job.wait()


class _Job:
    """Parts of one piece of work, each of which one thread takes."""

    def __init__(self, compute: Callable[[int, int], None], size: int, count: int) -> None:
        self._compute = compute
        self._size, self._count = size, count
        self._next = iter(range(count))  # whose next is one step of the interpreter, as is what appends to a list
        self._done: list[int] = []
        self._ended: SimpleQueue[Exception | None] = SimpleQueue()

    def work(self) -> None:
        """Compute parts until all are taken."""
        for part in self._next:
            self._compute(self._size * part // self._count, self._size * (part + 1) // self._count)
            self._done.append(part)
        if len(self._done) == self._count:
            self._ended.put(None)

    def fail(self, error: Exception) -> None:
        """A part will not be done."""
        self._ended.put(error)

    def wait(self) -> None:
        """Return when all parts are done."""
        if (error := self._ended.get()) is not None:
            raise error


class _Helper(Thread):
    """A thread that works at the latest job it was given."""

    def __init__(self) -> None:
        super().__init__(name="host-product", daemon=True)
        self._job: _Job | None = None
        self._given = Lock()
        self._given.acquire()

    def give(self, job: _Job) -> None:
        """Wake the thread for this job. It never sees one before it that it has not begun: its caller has done that."""
        self._job = job
        if self._given.locked():  # only this caller opens it, and only the thread shuts it
            self._given.release()

    def run(self) -> None:
        """Work at what is given."""
        with np.errstate(over="ignore"):  # as the caller has it; each thread has its own
            while True:
                self._given.acquire()
                job, self._job = self._job, None
                if job is None:
                    continue
                try:
                    job.work()
                except Exception as error:  # noqa: BLE001 - the caller raises it
                    job.fail(error)
                del job

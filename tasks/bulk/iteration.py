"""Going through a bulk job's finished lines, from the first to the last."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Generator

    from tasks.bulk.finished import Finished
    from tasks.bulk.job import Job


def finished_of(job: Job) -> Generator[Finished, None, None]:
    """The finished lines. Whoever leaves early takes back what was sent; the same job goes on where it was."""
    with job:
        yield from job


async def afinished_of(make: Callable[[], Job]) -> AsyncIterator[Finished]:
    """The same for asyncio: the job is made, and goes on, on a thread of its own."""
    loop = asyncio.get_running_loop()
    thread = ThreadPoolExecutor(1, "bulk")
    try:
        job = await loop.run_in_executor(thread, make)
        lines = finished_of(job)
        try:
            while (line := await loop.run_in_executor(thread, next, lines, None)) is not None:
                yield line
        finally:
            # Whoever is cancelled has left a step behind that still runs there.
            job.stop()
            await loop.run_in_executor(thread, lines.close)
    finally:
        # Who is cancelled twice, or while the input is read, does not wait for the thread: the event loop would stand still.
        thread.shutdown(wait=False)

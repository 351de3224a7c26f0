"""Going through a bulk job's finished lines, from the first to the last."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator

    from tasks.bulk.finished import Finished
    from tasks.bulk.job import Job


def finished_of(job: Job) -> Generator[Finished, None, None]:
    """The finished lines. Whoever leaves early takes back what was sent; the same job goes on where it was."""
    with job:
        yield from job


async def afinished_of(job: Job) -> AsyncIterator[Finished]:
    """The same for asyncio: each step runs on a thread."""
    lines = finished_of(job)
    try:
        while (line := await asyncio.to_thread(next, lines, None)) is not None:
            yield line
    finally:
        await asyncio.to_thread(lines.close)

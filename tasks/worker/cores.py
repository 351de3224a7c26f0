"""One core for a worker's own threads, and all cores for the processes that it starts.

Python lets one thread run at a time. Where the system spreads a process's threads over cores, each hand-over between two of them
wakes a core that slept, and takes the interpreter's data from one cache to another: a third of what a request cost a worker. Only
Linux lets a process choose.
"""

from __future__ import annotations

import logging
import os
import random
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping

logger = logging.getLogger(__name__)

#: The worker moves where others have used its core by so much more of the time than the least used core was used.
MARGIN = 0.25
#: The field of Linux's ``stat`` of a thread that says on which core it ran last, counted behind the command's name.
_RAN_ON = 36


def available_cores() -> frozenset[int]:
    """The cores that this thread may use; none where the system does not say, and cannot be told."""
    return frozenset(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else frozenset()


@contextmanager
def spread(cores: Collection[int]) -> Iterator[None]:
    """Let threads and processes that this thread starts meanwhile use these cores; with none of them, its own."""
    own = available_cores()
    if not cores or not own:
        yield
        return
    # What a container may use can change, and then these may be none of its cores. A process that starts on one core works.
    with suppress(OSError):
        os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setaffinity(0, own)


class OneCore:
    """Keeps the threads of this process on one core.

    Args:
        cores: those to choose from; with fewer than two there is no choice, and nothing is done.
        busy_s: says for how many seconds each core was in use since the machine's start.
        own_s: says how much of that this process used since its start.
        moves: whether to move now: drawn, or two workers of one core would both move to the same idle one, and back.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        cores: Collection[int],
        busy_s: Callable[[], Mapping[int, float]] | None = None,
        own_s: Callable[[], float] = time.process_time,
        moves: Callable[[], bool] = lambda: random.random() < 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        has_lock = getattr(sys, "_is_gil_enabled", lambda: True)()
        self._cores = frozenset(cores) if len(cores) > 1 and has_lock else frozenset()
        self._busy_s = busy_s or cores_busy_s
        self._own_s = own_s
        self._moves = moves
        self._clock = clock
        self._seen: tuple[float, Mapping[int, float], float] | None = None
        #: Where the threads are; ``None`` where they are not kept.
        self.core: int | None = None

    def start(self) -> None:
        """Keep all threads on the core that the system has chosen for this one."""
        if self._cores:
            ran_on = _ran_on()
            self.core = ran_on if ran_on in self._cores else min(self._cores)
            self._keep()

    def look(self, _: object = None) -> None:
        """Keep threads on the core that were started since, and move to an idle core where others need this one.

        The thread that calls this may use all cores: it has to run where others take all of this one.
        """
        if self.core is None:
            return
        now, busy_s, own_s = self._clock(), self._busy_s(), self._own_s()
        if self._seen is not None:
            then, before_s, own_before_s = self._seen
            used = {
                core: (busy_s[core] - before_s.get(core, 0.0)) / (now - then) for core in self._cores & busy_s.keys()
            }
            if self.core in used:
                used[self.core] -= (own_s - own_before_s) / (now - then)
                idlest = min(used, key=lambda core: used[core])
                if used[self.core] > used[idlest] + MARGIN and self._moves():
                    logger.debug("the worker's threads move from core %d to core %d", self.core, idlest)
                    self.core = idlest
        self._seen = now, busy_s, own_s
        self._keep()
        with suppress(OSError):
            os.sched_setaffinity(0, self._cores)

    def _keep(self) -> None:
        """Keep all threads on the core, until the system refuses: a container's cores may change, or its rules forbid it."""
        assert self.core is not None
        try:
            for thread in Path("/proc/self/task").iterdir():
                with suppress(ProcessLookupError):  # it has just ended
                    os.sched_setaffinity(int(thread.name), {self.core})
        except OSError as error:
            logger.info("the worker's threads are not kept on one core (%s)", error)
            self.core = None


def cores_busy_s() -> dict[int, float]:
    """For how many seconds each core was in use since the machine's start; nothing where Linux does not say."""
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    found = {}
    with suppress(OSError, ValueError):
        for line in Path("/proc/stat").read_text().splitlines():
            name, *ticks = line.split()
            if name.startswith("cpu") and name != "cpu":
                user, nice, system, _idle, _waiting, *interrupts = map(int, ticks)
                found[int(name.removeprefix("cpu"))] = (user + nice + system + sum(interrupts[:3])) * tick_s
    return found


def _ran_on() -> int | None:
    """The core that this thread ran on last."""
    with suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/thread-self/stat").read_text().rpartition(")")[2].split()[_RAN_ON])
    return None

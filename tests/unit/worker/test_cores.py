"""One core for a worker's own threads, and all of them for what it starts."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tasks.worker.cores import OneCore, available_cores, cores_busy_s, spread

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="only Linux lets a process choose its cores"
)


@pytest.fixture
def cores() -> Iterator[frozenset[int]]:
    """What this process may use; it gets all of it back."""
    found = available_cores()
    if len(found) < 2:
        pytest.skip("there is one core")
    yield found
    for thread in threads():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(thread, found)


def threads() -> list[int]:
    return [int(path.name) for path in Path("/proc/self/task").iterdir()]


def chosen() -> list[set[int]]:
    """The cores of each thread of this process; one may end at any time."""
    found = []
    for thread in threads():
        with suppress(ProcessLookupError):
            found.append(os.sched_getaffinity(thread))
    return found


class Machine:
    """Two cores, used as a test says, for ten seconds at a time."""

    def __init__(self, *, moves: bool = True) -> None:
        self.now = self.own_s = 0.0
        self.used_s = [0.0, 0.0]
        first, second = sorted(available_cores())[:2]
        self.cores = (first, second)
        self.kept = OneCore(
            self.cores,
            lambda: dict(zip(self.cores, self.used_s, strict=True)),
            lambda: self.own_s,
            lambda: moves,
            lambda: self.now,
        )
        self.kept.start()
        self.kept.core = first
        self.kept.look()

    def spend(self, first: float, second: float, own: float = 0.0) -> int | None:
        """Where the threads are after ten seconds, in which this share of each core was used, and this one by themselves."""
        self.now += 10
        self.used_s = [self.used_s[0] + 10 * first, self.used_s[1] + 10 * second]
        self.own_s += 10 * own
        self.kept.look()
        return self.kept.core


def test_all_threads_are_on_one_core(cores: frozenset[int]) -> None:
    """Those that are there, and those that they start."""
    kept = OneCore(cores)
    kept.start()
    assert kept.core in cores
    found: list[set[int]] = []
    thread = threading.Thread(target=lambda: found.append(os.sched_getaffinity(0)))
    thread.start()
    thread.join()
    assert all(own == {kept.core} for own in [*found, *chosen()])


def test_what_is_started_has_all(cores: frozenset[int]) -> None:
    """A process inherits the cores of the thread that starts it, which has its own back afterwards."""
    kept = OneCore(cores)
    kept.start()
    with spread(cores):
        assert available_cores() == cores
    with spread(()):
        assert available_cores() == {kept.core}
    assert available_cores() == {kept.core}


@pytest.mark.usefixtures("cores")
def test_others_need_the_core() -> None:
    """The worker moves to a core that is idle, and the thread that looks after that may use all."""
    machine = Machine()
    first, second = machine.cores
    assert machine.spend(0.9, 0.9) == first
    assert machine.spend(0.9, 0.7) == first
    assert machine.spend(0.9, 0.1, own=0.8) == first
    assert machine.spend(0.9, 0.1) == second
    assert available_cores() == set(machine.cores)
    assert {second} in chosen() or len(threads()) == 1


@pytest.mark.usefixtures("cores")
def test_two_workers_need_not_both_move() -> None:
    """Whether one moves is drawn."""
    machine = Machine(moves=False)
    assert machine.spend(0.9, 0.1) == machine.cores[0]


def test_nothing_to_choose() -> None:
    """With one core, or where it is switched off, nothing is done."""
    before = available_cores()
    for cores in ((), (min(before),)):
        kept = OneCore(cores)
        kept.start()
        kept.look()
        assert kept.core is None
    assert available_cores() == before


@pytest.mark.usefixtures("cores")
def test_a_core_that_is_no_longer_there() -> None:
    """A container's cores may change: the worker goes on as it is, and so does what it starts."""
    machine = Machine()
    machine.kept.core = 1_000
    assert machine.spend(0.1, 0.1) is None
    assert machine.spend(0.1, 0.1) is None
    before = available_cores()
    with spread({1_000}):
        assert available_cores() == before


def test_what_linux_says(cores: frozenset[int]) -> None:
    """Each core was used for some time since the start of the machine."""
    assert cores <= cores_busy_s().keys()
    assert all(cores_busy_s().values())

"""Threads that share a product out: every part is computed once, whoever gets a core."""

from __future__ import annotations

import threading

import pytest

from tasks.engine.model.layout.threads import HostThreads

WAIT_S = 30


def test_parts_are_computed_at_the_same_time() -> None:
    """By one thread each; again and again."""
    threads = HostThreads(3)
    threads.start()
    for size in (3, 100):
        meet = threading.Barrier(3)
        parts: list[tuple[int, int]] = []

        def compute(start: int, end: int, meet: threading.Barrier = meet, parts: list[tuple[int, int]] = parts) -> None:
            meet.wait(WAIT_S)
            parts.append((start, end))

        threads.share(compute, size)
        covered = [number for start, end in sorted(parts) for number in range(start, end)]
        assert covered == list(range(size))


def test_a_caller_computes_what_no_other_thread_takes() -> None:
    """Its helper is still busy with the job before: the caller takes both parts."""
    threads = HostThreads(2)
    threads.start()
    entered, leave = threading.Event(), threading.Event()
    caller = threading.current_thread()

    def hold(start: int, end: int) -> None:
        if threading.current_thread() is not caller:
            entered.set()
            assert leave.wait(WAIT_S)
        elif not entered.wait(WAIT_S):
            raise TimeoutError

    parts: list[int] = []

    def compute(start: int, end: int) -> None:
        assert threading.current_thread() is caller
        parts.extend(range(start, end))

    def share_within(start: int, end: int) -> None:
        hold(start, end)
        if threading.current_thread() is caller:
            threads.share(compute, 4)
            leave.set()

    threads.share(share_within, 2)
    assert parts == [0, 1, 2, 3]


def test_what_a_part_raises_the_caller_raises() -> None:
    """Whichever thread it was; the threads go on."""
    threads = HostThreads(2)
    threads.start()
    meet = threading.Barrier(2)

    def compute(start: int, _: int) -> None:
        meet.wait(WAIT_S)
        if threading.current_thread() is not threading.main_thread():
            raise MemoryError(start)

    with pytest.raises(MemoryError):
        threads.share(compute, 2)
    done: list[int] = []
    threads.share(lambda start, end: done.extend(range(start, end)), 10)
    assert sorted(done) == list(range(10))


def test_without_helpers_the_caller_computes_all() -> None:
    """Before the start, and where there is one thing to do."""
    calls: list[tuple[int, int]] = []
    threads = HostThreads(4)
    threads.share(lambda start, end: calls.append((start, end)), 7)
    threads.start()
    threads.share(lambda start, end: calls.append((start, end)), 1)
    assert calls == [(0, 7), (0, 1)]

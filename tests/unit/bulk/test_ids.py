"""What a driver remembers of each line, and how little that is."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

from tasks.bulk.ids import Ids
from tasks.bulk.numbers import Numbers

if TYPE_CHECKING:
    from collections.abc import Callable

LINES = 20_000


def bytes_per_line(fill: Callable[[], object]) -> float:
    """What is kept of so many lines."""
    tracemalloc.start()
    kept = fill()
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept
    return used / LINES


def test_ids() -> None:
    """Each id is that of the line which had it first, however many there are, and costs a few bytes."""
    ids = Ids()
    assert [ids.first(f"id {number}", number) for number in range(1, 5_000)] == list(range(1, 5_000))
    assert [ids.first(f"id {number}", 9_999) for number in range(1, 5_000)] == list(range(1, 5_000))
    assert ids.first("\ud800", 7) == 7

    def fill() -> Ids:
        found = Ids()
        for number in range(LINES):
            found.first(f"a rather long id, of which only a digest is kept: {number}", number + 1)
        return found

    assert bytes_per_line(fill) < 60


def test_numbers() -> None:
    """They are a set in order, of one bit for each line."""
    numbers = Numbers()
    for number in (9, 1, 64, 9, 100_000):
        numbers.add(number)
    assert list(numbers) == [1, 9, 64, 100_000]
    assert len(numbers) == 4
    assert [number in numbers for number in (0, 1, 63, 64, 100_000, 10**9)] == [False, True, False, True, True, False]

    def fill() -> Numbers:
        found = Numbers()
        for number in range(LINES):
            found.add(number)
        return found

    assert bytes_per_line(fill) < 1

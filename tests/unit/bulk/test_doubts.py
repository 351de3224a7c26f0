"""Requests of a bulk job that are lost: by two looks in a row, and those with a journal only while nothing ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tasks.bulk.doubts import Doubts

if TYPE_CHECKING:
    from collections.abc import Iterable


class Requests:
    """What is known of requests."""

    def __init__(self) -> None:
        self.gone: set[str] = set()
        self.left: set[str] = set()

    def unknown(self, task_ids: Iterable[str]) -> set[str]:
        """Those that have neither an entry nor a journal."""
        return self.gone & set(task_ids)

    def unattended(self, task_ids: Iterable[str]) -> set[str]:
        """Those that nobody holds."""
        return (self.gone | self.left) & set(task_ids)


def test_two_looks() -> None:
    """One that moves between two places may be unknown once; looks have a time between them."""
    now = [100.0]
    requests: Any = Requests()
    doubts = Doubts(requests, 5.0, lambda: now[0])
    requests.gone = {"a", "b"}
    assert doubts.lost(["a", "b"]) == set()
    now[0] += 4.9
    assert doubts.lost(["a", "b"]) == set()
    now[0] += 0.1
    requests.gone = {"a"}
    assert doubts.lost(["a", "b"]) == {"a"}


def test_a_journal_that_nobody_goes_on_with() -> None:
    """While others end, nobody asks who holds it, which reads all messages; a job in which nothing ends sends it again."""
    requests: Any = Requests()
    doubts = Doubts(requests, 0.0)
    requests.left = {"a"}
    for _ in range(3):
        assert doubts.lost(["a", "b"]) == set()
        doubts.heard()
    looks = [doubts.lost(["a", "b"]) for _ in range(3)]
    assert looks == [set(), set(), {"a"}]

"""How a worker leaves: when what runs is done, when it is told to hurry, and when its engines do not let go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tasks.worker.drain import Drain
from tasks.worker.queues.room import Room
from tests.support import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

LONG_S = 600.0


class Loop:
    """Notes what it is told; ``requeue_all`` frees the slots, if requests stop when they are told to."""

    def __init__(self, room: Room, *, stops: bool = True) -> None:
        self.told: list[str] = []
        self.on_end_of_fetch: Callable[[], None] = lambda: None
        self._room = room
        self._stops = stops

    def requeue_all(self) -> None:
        self.told.append("requeue")
        if self._stops:
            self._room.leave("q")

    @staticmethod
    def fetching() -> bool:
        return False

    def end_fetch(self, _timeout_s: float) -> None:
        self.on_end_of_fetch()

    def exit(self, status: int) -> None:
        self.told.append(f"exit {status}" if status else "exit")

    def abort(self) -> None:
        self.told.append("abort")


class Parts:
    """A worker's room with one request in it, and its drain."""

    def __init__(self, *, stops: bool = True, end_engines: Callable[[Room], None] = lambda _: None) -> None:
        self.room = Room({"q": 1}, total=1)
        self.room.enter("q")
        self.loop = Loop(self.room, stops=stops)
        self.changes = 0
        wait_s = LONG_S if stops else 0.0
        self.drain = Drain(
            self.room, self.loop, LONG_S, self._on_change, lambda: end_engines(self.room), wait_s, fetch_s=0.0
        )

    def _on_change(self) -> None:
        self.changes += 1

    def wait(self) -> list[str]:
        wait_until(lambda: self.loop.told[-1:] in (["exit"], ["abort"]))
        return self.loop.told


def test_a_pause() -> None:
    """It takes nothing until it is told to go on, and says why; the fetch that is out ends before it says so."""
    parts = Parts()
    parts.room.leave("q")
    parts.loop.on_end_of_fetch = lambda: seen.append((parts.room.closed, parts.changes))
    seen: list[tuple[bool, int]] = []
    parts.drain.begin()
    assert seen == [(True, 0)]
    assert (parts.drain.reason, parts.room.has_room("q")) == ("told to take nothing more", False)
    parts.drain.end()
    assert (parts.drain.reason, parts.room.has_room("q")) == ("", True)
    assert parts.changes == 2


def test_redis_is_away_when_it_is_told_to_pause() -> None:
    """Its room is closed, so it says that it drains, though the fetch that is out could not be ended."""
    parts = Parts()

    def fail() -> None:
        raise ConnectionError("away")

    parts.loop.on_end_of_fetch = fail
    with pytest.raises(ConnectionError, match="away"):
        parts.drain.begin()
    assert (parts.drain.reason, parts.room.closed, parts.changes) == ("told to take nothing more", True, 1)


class Busy(Loop):
    """Fetches a request for each one that it gives back, as long as there is room."""

    def requeue_all(self) -> None:
        super().requeue_all()
        if self._room.has_room("q"):
            self._room.enter("q")


@pytest.mark.parametrize("is_draining", [False, True])
def test_starts_over(is_draining: bool) -> None:
    """Nothing runs in between, however many requests wait; a worker that was told to take nothing still takes nothing."""
    parts = Parts()
    parts.drain = Drain(
        parts.room, Busy(parts.room), LONG_S, parts._on_change, lambda: None, requeue_s=0.0, fetch_s=0.0
    )
    if is_draining:
        parts.drain.begin()
    parts.drain.start_over()
    assert parts.room.busy() == {}
    assert parts.room.has_room("q") is not is_draining


def test_leaves_when_what_runs_is_done() -> None:
    """Nothing is handed back, and there is no way back into service."""
    parts = Parts()
    parts.drain.leave()
    wait_until(lambda: parts.changes == 1)
    assert parts.drain.reason == "told to stop"
    parts.room.leave("q")
    assert parts.wait() == ["exit"]
    parts.drain.end()
    assert not parts.room.has_room("q")


@pytest.mark.parametrize("hurry", [lambda drain: drain.leave(), lambda drain: drain.leave_now()])
def test_requeues(hurry: Callable[[Drain], None]) -> None:
    """The second call, or the one that does not wait, requeues the running requests."""
    parts = Parts()
    parts.drain.leave()
    hurry(parts.drain)
    assert parts.wait() == ["requeue", "exit"]


@pytest.mark.parametrize(("frees", "told"), [(True, ["requeue", "exit"]), (False, ["requeue", "abort", "exit"])])
def test_an_engine_that_does_not_stop(frees: bool, told: list[str]) -> None:
    """The engines are ended; where that frees no slot, Redis does not answer, and the process ends as it is."""
    parts = Parts(stops=False, end_engines=lambda room: room.leave("q") if frees else None)
    parts.drain.leave_now()
    wait_until(lambda: "exit" in parts.loop.told)
    assert parts.loop.told == told

"""The order in which a worker takes from lanes, and the thread that looks at them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks.broker.queues.lanes import SERVE_S, Head
from tasks.broker.queues.queues import lane_of, list_of
from tasks.errors import BrokerUnavailable
from tasks.worker.queues.lanes import Lanes
from tests.support import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

QUEUE = "tier-under-3B"
A, B, C = "a@lab", "b@lab", "c@lab"


def head(node: str, age_s: float, wait_s: float = 0.0, priority: int = 0) -> Head:
    """The next request of a lane, or of the queue's own list."""
    name = lane_of(QUEUE, priority, node) if node else list_of(QUEUE, priority)
    return Head(name, node, age_s, wait_s, 2)


class Fleet:
    """Lanes that say what they are told to."""

    def __init__(self, *heads: Head) -> None:
        self.found = list(heads)
        self.said: list[str] = []
        self.warm: dict[str, int] = {}
        self.looks = self.notes = 0
        self.trouble: list[Exception] = []

    def heads(self) -> list[Head]:
        self.looks += 1
        if self.trouble:
            raise self.trouble.pop()
        return self.found

    def serve(self) -> None:
        self.said.append("serve")

    def leave(self) -> None:
        self.said.append("leave")

    def note_warm(self, waits_ms: Mapping[str, int]) -> None:
        self.notes += 1
        self.warm.update(waits_ms)


def lane(node: str) -> str:
    return lane_of(QUEUE, 0, node)


def test_by_the_time_that_they_have_waited() -> None:
    """What waits for another worker counts as if it had come later by its wait, and not at all before that is over."""
    fleet = Fleet(head(A, 3.0, 2.0), head(B, 5.0), head("", 2.0), head(C, 3.0, 4.0))
    lanes = Lanes(B, fleet, lambda: True)
    assert lanes.look() == 0.25
    assert lanes.beside(QUEUE, 0) == ([lane(B)], [lane(A)])
    assert lanes.beside(QUEUE, 0, own=True) == ([lane(B)], [])
    assert lanes.beside(QUEUE, 5) == ([lane_of(QUEUE, 5, B)], [])
    fleet.found = [head(A, 9.0, 2.0), head(B, 1.0), head("", 2.0)]
    lanes.look()
    assert lanes.beside(QUEUE, 0) == ([lane(A)], [lane(B)])
    assert lanes.counts()["waiting"] == 2


def test_it_looks_again_in_time() -> None:
    """The next look is when the next request becomes everybody's, if that is soon."""
    fleet = Fleet(head(A, 1.0, 1.0625), head(C, 1.0, 5.0))
    assert Lanes(B, fleet, lambda: True).look() == 0.0625


def test_a_change_is_told() -> None:
    """A fetch that is out is told when other lists are taken from, and only then."""
    told: list[int] = []
    fleet = Fleet()
    lanes = Lanes(B, fleet, lambda: True, on_change=lambda: told.append(1))
    lanes.look()
    assert told == []
    fleet.found = [head(A, 3.0, 2.0)]
    lanes.look()
    lanes.look()
    assert told == [1]


def test_while_it_takes_requests() -> None:
    """A worker says every two seconds that it has lanes, and at once that it has none any more."""
    now, is_open = [0.0], [True]
    fleet = Fleet()
    lanes = Lanes(B, fleet, lambda: is_open[0], clock=lambda: now[0])
    lanes.look()
    lanes.look()
    assert fleet.said == ["serve"]
    now[0] += SERVE_S
    lanes.look()
    is_open[0] = False
    lanes.look()
    lanes.look()
    assert fleet.said == ["serve", "serve", "leave"]
    is_open[0] = True
    lanes.look()
    assert fleet.said[-1] == "serve"


def test_it_goes_on() -> None:
    """Neither Redis's absence nor an error ends the thread; what is warm is noted without waiting for the next look."""
    fleet = Fleet()
    fleet.trouble = [BrokerUnavailable("away"), ValueError("a bug")]
    lanes = Lanes(B, fleet, lambda: True, look_s=0.01)
    lanes.start()
    try:
        wait_until(lambda: not fleet.trouble)
        lanes.warm({"digest": 7})
        wait_until(lambda: fleet.warm == {"digest": 7})
    finally:
        lanes.stop()
    assert not lanes.is_alive()
    assert fleet.said[-1] == "leave"


def test_many_prompts_are_noted_together() -> None:
    """Prompts that begin close together cost one call, and none of them a look at the lanes."""
    fleet = Fleet()
    lanes = Lanes(B, fleet, lambda: True, look_s=60)
    lanes.start()
    try:
        wait_until(lambda: fleet.looks == 1)
        for number in range(100):
            lanes.warm({f"digest {number}": 7})
        wait_until(lambda: len(fleet.warm) == 100)
    finally:
        lanes.stop()
    assert fleet.notes < 100
    assert fleet.looks == 1


def test_a_steal_is_followed_by_a_look() -> None:
    """The next request in a lane of another worker may be everybody's, too, or not yet."""
    fleet = Fleet(head(A, 3.0, 2.0))
    lanes = Lanes(B, fleet, lambda: True, look_s=60)
    lanes.start()
    try:
        wait_until(lambda: fleet.looks == 1)
        lanes.took(lane(A))
        wait_until(lambda: fleet.looks == 2)
    finally:
        lanes.stop()

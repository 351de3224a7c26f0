"""Room: slots by queue and in all, and who is told when some come free."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from tasks.worker.queues.room import Room

if TYPE_CHECKING:
    from collections.abc import Callable


def full_room(on_change: Callable[[], None] = lambda: None) -> Room:
    """Two slots of small and one of large, three in all, every one of them in use."""
    room = Room({"small": 2, "large": 1}, total=3, on_change=on_change)
    for queue in ("small", "small", "large"):
        room.enter(queue)
    return room


def test_each_queue_has_its_own_slots() -> None:
    """A queue is full when its own slots are, while others still have room."""
    room = Room({"small": 2, "large": 1}, total=10)
    room.enter("large")
    assert not room.has_room("large")
    assert room.has_room("small")
    assert room.busy() == {"large": 1}


def test_the_total_bounds_all() -> None:
    """When all slots are in use no queue has room, not even one without slots of its own."""
    room = full_room()
    assert not any(room.has_room(queue) for queue in ("small", "large", "celery"))
    room.leave("large")
    assert room.has_room("celery")
    assert room.has_room("large")
    assert not room.has_room("small")


def test_one_too_many_is_counted() -> None:
    """A request that came although there was no room (with a fetch that was out) takes a slot all the same."""
    room = Room({"small": 1}, total=1)
    room.enter("small")
    room.enter("small")
    room.leave("small")
    assert not room.has_room("small")
    room.leave("small")
    assert room.busy() == {}
    assert room.has_room("small")


def test_tells_when_room_comes() -> None:
    """Whoever fetches is told when a full queue gets a free slot, and not otherwise."""
    told: list[str] = []
    room = full_room(lambda: told.append("change"))
    room.leave("large")
    assert told == ["change"]
    room.leave("small")
    assert len(told) == 2
    room.leave("small")
    assert len(told) == 2


def test_may_be_asked_from_what_it_tells() -> None:
    """Who is told may ask at once: nothing is locked meanwhile."""
    answers: list[bool] = []
    room = Room({}, total=1, on_change=lambda: answers.append(room.has_room("any")))
    room.enter("any")
    room.leave("any")
    assert answers == [True]


def test_a_closed_room_takes_nothing() -> None:
    """A room is closed and opened again whatever runs in it, and each is told."""
    told: list[bool] = []
    room = Room({}, total=2, on_change=lambda: told.append(room.closed))
    room.enter("any")
    room.close()
    assert not room.has_room("any")
    assert room.busy() == {"any": 1}
    room.reopen()
    assert room.has_room("any")
    assert told == [True, False]


def test_waits_until_idle() -> None:
    """Waiting ends with the last request that leaves, or with its time."""
    room = full_room()
    assert not room.wait_idle(0.01)
    answers: list[bool] = []
    waiter = threading.Thread(target=lambda: answers.append(room.wait_idle(30)))
    waiter.start()
    for queue in ("small", "small", "large"):
        room.leave(queue)
    waiter.join(30)
    assert answers == [True]
    assert room.wait_idle(0)


def test_beyond_the_slots() -> None:
    """Beside batch work that fills the slots so many urgent requests run, and no more batch work; without it none do."""
    told: list[str] = []
    room = Room({"small": 2}, total=2, on_change=lambda: told.append("change"), most_urgent=1)
    room.enter("small")
    room.enter("small", is_batch_work=True)
    assert room.has_room("small", urgent=True)
    assert not room.has_room("small")
    room.enter("small")
    assert not room.has_room("small", urgent=True)
    room.leave("small")
    assert told == ["change"]
    room.leave("small", is_batch_work=True)
    room.enter("small")
    assert not room.has_room("small", urgent=True)

"""A worker ends only where requests wait, there is room for them, and it receives none."""

from __future__ import annotations

from tasks.errors import BrokerUnavailable
from tasks.worker.queues.starvation import Starvation


class World:
    """What a worker sees, second by second."""

    def __init__(self) -> None:
        self.now = 100.0
        self.depth = 1
        self.received = 0
        self.away = False
        self.watch = Starvation(30, self.waiting, lambda: self.received, lambda _: None, lambda: self.now)

    def waiting(self) -> int:
        if self.away:
            raise BrokerUnavailable("away")
        return self.depth

    def pass_s(self, seconds: int) -> str:
        """What is said within so many seconds, with a look in each."""
        for _ in range(seconds):
            self.now += 1
            if said := self.watch.look():
                return said
        return ""


def test_starved() -> None:
    """After so long with requests, room and nothing received, it says so with the numbers."""
    world = World()
    assert world.pass_s(30) == ""
    assert world.pass_s(2).startswith("1 requests wait and there is room for them, but none was received for 30 s")


def test_received() -> None:
    """One message is enough."""
    world = World()
    for _ in range(10):
        assert world.pass_s(20) == ""
        world.received += 1


def test_nothing_to_take() -> None:
    """Without requests, or without room for them, nothing is missing."""
    world = World()
    for _ in range(10):
        world.depth = 1
        assert world.pass_s(20) == ""
        world.depth = 0
        assert world.pass_s(1) == ""
    assert world.pass_s(100) == ""


def test_redis_away() -> None:
    """Nobody receives anything while Redis is away, and time begins again when it is back."""
    world = World()
    assert world.pass_s(25) == ""
    world.away = True
    assert world.pass_s(100) == ""
    world.away = False
    assert world.pass_s(25) == ""


def test_asleep() -> None:
    """A worker that was asleep is not starved when it wakes."""
    world = World()
    assert world.pass_s(20) == ""
    world.now += 1000
    assert world.pass_s(25) == ""


def test_slow_answers() -> None:
    """Where Redis answers a look after seconds only, another start of the worker would change nothing."""
    world = World()
    for _ in range(20):
        world.now += 7
        assert world.pass_s(1) == ""
    assert world.pass_s(40) != ""


def test_switched_off() -> None:
    """With 0 the thread ends at once."""
    watch = Starvation(0, lambda: 1, lambda: 0, lambda _: None)
    watch.start()
    watch.join(10)
    assert not watch.is_alive()
    watch.stop()

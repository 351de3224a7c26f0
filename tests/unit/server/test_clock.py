"""Redis's clock, between looks and without Redis."""

from __future__ import annotations

from tasks.errors import BrokerUnavailable
from tasks.server.clock import FRESH_S, ServerClock


class Clocks:
    """This machine's two clocks and Redis's, which a test moves."""

    def __init__(self) -> None:
        self.monotonic = 50.0
        self.wall = 2_000.0
        self.redis = 1_000.0
        self.looks = 0
        self.away = False
        self.trip_s = 0.0

    def read(self) -> float:
        self.looks += 1
        if self.away:
            raise BrokerUnavailable("away")
        self.monotonic += self.trip_s
        return self.redis

    def advance(self, seconds: float) -> None:
        self.monotonic += seconds
        self.wall += seconds
        self.redis += seconds

    def server(self) -> ServerClock:
        return ServerClock(self.read, lambda: self.monotonic, lambda: self.wall)


def test_it_is_redis_clock() -> None:
    """A machine that is far ahead goes by Redis, and looks only now and then; a change of its own time changes nothing."""
    clocks = Clocks()
    clock = clocks.server()
    assert clock.now() == 1_000.0
    clocks.advance(FRESH_S - 1)
    clocks.wall += 5_000
    assert clock.now() == 1_000.0 + FRESH_S - 1
    assert clocks.looks == 1
    clocks.advance(1)
    clocks.redis += 7  # it was put right meanwhile
    assert clock.now() == 1_000.0 + FRESH_S + 7
    assert clocks.looks == 2


def test_the_way_there_and_back() -> None:
    """What Redis says was true in the middle of a slow round trip."""
    clocks = Clocks()
    clocks.trip_s = 0.5
    assert clocks.server().now() == 1_000.25


def test_without_redis() -> None:
    """The last look counts while Redis is away; before the first, this machine's own time."""
    clocks = Clocks()
    clocks.away = True
    assert clocks.server().now() == 2_000.0
    clocks.away = False
    clock = clocks.server()
    assert clock.now() == 1_000.0
    clocks.away = True
    clocks.advance(2 * FRESH_S)
    assert clock.now() == 1_000.0 + 2 * FRESH_S

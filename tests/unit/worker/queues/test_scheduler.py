"""The thread that queues what is due goes on, whatever a look at the schedule brings."""

from __future__ import annotations

from tasks.broker.queues.schedule import Moved
from tasks.errors import BrokerUnavailable
from tasks.worker.queues.scheduler import Scheduler
from tests.support import wait_until


def test_it_goes_on() -> None:
    """Neither Redis's absence nor an error ends it; it looks again at once after it has queued something."""
    looks: list[Exception | Moved] = [
        BrokerUnavailable("away"),
        ValueError("a bug"),
        Moved(100, None),
        Moved(1, 3600.0),
    ]

    def move() -> Moved:
        answer = looks.pop(0) if looks else Moved(0, 3600.0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    scheduler = Scheduler(move, look_s=0.01)
    scheduler.start()
    try:
        wait_until(lambda: not looks)
    finally:
        scheduler.stop()
    assert not scheduler.is_alive()

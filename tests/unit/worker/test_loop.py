"""The fetch that is out when a worker is told to take nothing more."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tasks.broker.channel.holding import Holding
from tasks.worker.loop import CeleryLoop
from tests.support import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable


WAIT_S = 60.0


class Channel:
    """A channel with a fetch out."""

    def __init__(self, ended: list[str]) -> None:
        self.fetching = True
        self._ended = ended

    def refetch(self) -> None:
        self.fetching = False
        self._ended.append(threading.current_thread().name)


class Hub:
    """A loop whose next turn does not come."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.due.append(callback)


@pytest.fixture
def ended() -> list[str]:
    """The names of the threads on which a fetch was ended."""
    return []


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
def loop(hub: Hub, ended: list[str]) -> CeleryLoop:
    """Celery's loop, attached to a consumer of this thread."""
    consumer: Any = SimpleNamespace(hub=hub, task_consumer=SimpleNamespace(channel=Channel(ended)))
    loop = CeleryLoop()
    loop.attach(consumer, Holding())
    return loop


def test_it_ends_at_once_on_the_consumer_s_thread(loop: CeleryLoop, hub: Hub, ended: list[str]) -> None:
    """The loop's next turn may come after a request that is sent meanwhile."""
    loop.end_fetch(0.0)
    assert (ended, hub.due) == ([threading.current_thread().name], [])


def test_other_threads_leave_it_to_the_consumer(loop: CeleryLoop, hub: Hub, ended: list[str]) -> None:
    """A channel is its consumer's; the consumer looks at the room at its next turn."""

    def close() -> None:
        loop.refetch()
        loop.end_fetch(WAIT_S)

    thread = threading.Thread(target=close, name="other")
    thread.start()
    wait_until(lambda: hub.due)
    assert (ended, thread.is_alive()) == ([], True)
    for callback in hub.due:
        callback()
    thread.join()
    assert ended == [threading.current_thread().name]


def test_a_fetch_that_does_not_end_is_not_waited_for(loop: CeleryLoop, ended: list[str]) -> None:
    """Redis may not answer, and the worker has to leave all the same."""
    thread = threading.Thread(target=loop.end_fetch, args=(0.0,), name="other")
    thread.start()
    thread.join()
    assert (ended, loop.fetching()) == ([], True)


def test_before_there_is_a_consumer() -> None:
    """A worker may be told to drain before Celery has connected."""
    loop = CeleryLoop()
    loop.end_fetch(WAIT_S)
    loop.refetch()
    assert not loop.fetching()

"""The engine's end of the pipe: what ends the process, and that writing never holds up a step."""

from __future__ import annotations

import socket
from multiprocessing.connection import Connection
from queue import Queue
from typing import Any

import pytest

from tasks.engine.link import Link
from tasks.messages.engine import Abort, Shutdown
from tasks.messages.load import LoadFailed
from tasks.messages.pipe import Pipe


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> Queue[int]:
    """The exit codes with which the process would have ended."""
    codes: Queue[int] = Queue()
    monkeypatch.setattr("os._exit", codes.put)
    return codes


@pytest.fixture
def pipe() -> tuple[Connection[Any, Any], Link, Queue[object]]:
    """The worker's end, a started link at the other, and what the link received."""
    ours, theirs = socket.socketpair()
    link, received = Link(Pipe(theirs, "link-writer")), Queue[object]()
    link.start(received.put)
    return Connection(ours.detach()), link, received


@pytest.mark.parametrize(("last", "code"), [(None, 0), (Shutdown(), 0), ("nonsense", 1)])
def test_what_ends_the_process(
    exits: Queue[int], pipe: tuple[Connection[Any, Any], Link, Queue[object]], last: object, code: int
) -> None:
    """The pipe's end, a Shutdown, and a message that is none of ours."""
    ours, _, received = pipe
    ours.send(Abort("t"))
    assert received.get(timeout=60) == Abort("t")
    ours.close() if last is None else ours.send(last)
    assert exits.get(timeout=60) == code


def test_messages_arrive_in_order(exits: Queue[int], pipe: tuple[Connection[Any, Any], Link, Queue[object]]) -> None:
    """And after flush() they are in the pipe."""
    ours, link, _ = pipe
    for number in range(100):
        link.send(LoadFailed(str(number), ""))
    link.flush()
    assert [ours.recv().code for _ in range(100)] == [str(number) for number in range(100)]
    ours.close()
    assert exits.get(timeout=60) == 0


def test_a_worker_that_has_gone_is_no_error(
    exits: Queue[int], pipe: tuple[Connection[Any, Any], Link, Queue[object]]
) -> None:
    """What is written after it went is dropped; the reader ends the process."""
    ours, link, _ = pipe
    ours.close()
    assert exits.get(timeout=60) == 0
    link.send(LoadFailed("lost", ""))
    link.flush(timeout_s=0.2)

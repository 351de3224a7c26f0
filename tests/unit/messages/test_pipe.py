"""The pipe between worker and engine: order, sizes, and a reader that does not read."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from tasks.messages.pipe import READ_BYTES, Pipe

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGE = 4 * 2**20


@pytest.fixture
def ends() -> Iterator[tuple[Pipe, Pipe]]:
    """Both ends of a pipe, started."""
    ends = tuple(Pipe(link, "pipe") for link in socket.socketpair())
    for end in ends:
        end.start()
    yield ends[0], ends[1]
    for end in ends:
        end.end()


@pytest.mark.parametrize("size", [0, READ_BYTES - 4, READ_BYTES, LARGE])
def test_records_of_any_size_keep_their_order(ends: tuple[Pipe, Pipe], size: int) -> None:
    """Small and large ones arrive whole and in order, though the system takes the large ones in parts."""
    ours, theirs = ends
    records = [number if number % 3 else bytes([number]) * size for number in range(9)]
    for record in records:
        ours.send(record)
    assert [theirs.receive() for _ in records] == records


def test_who_sends_waits_for_no_reader(ends: tuple[Pipe, Pipe]) -> None:
    """What an end that does not read is sent waits beside the sender, and comes once it reads."""
    ours, theirs = ends
    for number in range(64):
        ours.send((number, b"x" * 2**16))
    ours.flush(timeout_s=0.01)
    assert [theirs.receive()[0] for _ in range(64)] == list(range(64))
    ours.flush(timeout_s=30)


def test_a_small_record_needs_no_other_thread() -> None:
    """It is with the system when send() returns: the thread for the rest was not even started."""
    ours, theirs = (Pipe(link, "pipe") for link in socket.socketpair())
    ours.send("now")
    ours.send("and this")
    assert theirs.receive() == "now"
    assert theirs.has_more
    assert theirs.receive() == "and this"
    assert not theirs.has_more


def test_an_end_that_is_gone(ends: tuple[Pipe, Pipe]) -> None:
    """What is sent to it is dropped; who receives is told."""
    ours, theirs = ends
    theirs.end()
    theirs._link.shutdown(socket.SHUT_RDWR)
    ours.send("lost")
    ours.send("lost")
    ours.flush(timeout_s=30)
    with pytest.raises(EOFError):
        ours.receive()

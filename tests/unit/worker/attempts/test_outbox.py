"""What is to be written, and what of it may wait."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tasks.messages.journal import End, Start, Token
from tasks.worker.attempts.outbox import QUIET_S, Outbox
from tests.unit.worker.attempts.test_publisher import new_attempt

if TYPE_CHECKING:
    from tasks.worker.attempts.attempt import Attempt

START = Start(attempt=1, model="m", revision="r", prompt_tokens=1, cached_tokens=0, prompt_hash="h")
END = End(attempt=1, index=2, finish_reason="stop", usage={})


def token(index: int) -> Token:
    return Token(attempt=1, index=index, ids=[index], text="x")


class Clock:
    """Seconds that the test sets."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def outbox(clock: Clock) -> Outbox:
    return Outbox(clock)


@pytest.fixture
def unheard() -> Attempt:
    """Batch work whose last tokens nobody listened to."""
    attempt = new_attempt()
    attempt.gives_way, attempt.is_heard = True, False
    return attempt


def test_tokens_that_nobody_reads_wait(outbox: Outbox, clock: Clock, unheard: Attempt) -> None:
    """Half a second, counted from the first of them."""
    outbox.add([(unheard, token(0))])
    clock.now += QUIET_S / 2
    outbox.add([(unheard, token(1))])
    outbox.look()
    assert not outbox
    clock.now += QUIET_S / 2
    outbox.look()
    assert outbox.is_urgent
    assert outbox.take() == {unheard: [token(0), token(1)]}
    outbox.add([(unheard, token(2))])
    outbox.look()
    assert not outbox
    outbox.look(is_last=True)
    assert outbox.take() == {unheard: [token(2)]}


def test_what_ends_a_request_takes_its_tokens_along(outbox: Outbox, unheard: Attempt) -> None:
    """In their order, at once; those of other requests go on waiting."""
    other = new_attempt("t2")
    other.gives_way, other.is_heard = True, False
    outbox.add([(unheard, token(0)), (other, token(0)), (unheard, token(1)), (unheard, END)])
    assert outbox.is_urgent
    assert outbox.take() == {unheard: [token(0), token(1), END]}


@pytest.mark.parametrize(("gives_way", "is_heard"), [(False, False), (True, True), (True, None)])
def test_all_others_are_written_at_once(
    outbox: Outbox, unheard: Attempt, gives_way: bool, is_heard: bool | None
) -> None:
    """Interactive requests, those that somebody reads, and first tokens, which tell whether somebody does."""
    unheard.gives_way, unheard.is_heard = gives_way, is_heard
    urgent = []
    for entry in (START, token(0)):
        outbox.add([(unheard, entry)])
        urgent.append(outbox.is_urgent)
    assert urgent == [False, True]
    assert outbox.take() == {unheard: [START, token(0)]}

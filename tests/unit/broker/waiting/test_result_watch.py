"""What one look at a stored result leads to, at which time."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tasks.broker.waiting.absence import STEADY_IN_ALL_S, STEADY_S
from tasks.broker.waiting.result_watch import LOST_AFTER_S, ResultWatch
from tasks.errors import UnknownRequest

#: Replies of Redis: no result, an entry in the ledger or none, no journal.
QUEUED: tuple[Any, ...] = (None, 1, [])
NOWHERE: tuple[Any, ...] = (None, 0, [])


def watch(unknown_after_s: float) -> ResultWatch:
    return ResultWatch("x", "celery-task-meta-x", lambda _: None, unknown_after_s)


def test_any_task_s_result_may_come() -> None:
    """A result of Celery's own class may be any task's: it is waited for, unless it was a request that Redis has lost since."""
    never = watch(math.inf)
    for now in range(0, 10_000, 100):
        never.take(NOWHERE, now)
        assert never.error is None
        assert never.due_at <= now + 5

    known = watch(math.inf)
    known.take(QUEUED, 0)
    known.take(NOWHERE, 1)
    known.take(NOWHERE, LOST_AFTER_S)
    assert known.error is None
    known.take(NOWHERE, 1 + LOST_AFTER_S)
    assert isinstance(known.error, UnknownRequest)


def test_one_outage_after_another() -> None:
    """They do not put off for ever that a lost request is given up; what comes just before is waited for while Redis settles."""
    lost = watch(5.0)
    lost.take(QUEUED, 0)
    for now in range(10, 90, 20):
        lost.take(NOWHERE, now)
        lost.take(NOWHERE, now + STEADY_S - 1)
        assert lost.error is None
        lost.trouble("away", now + STEADY_S - 1)
    lost.take(NOWHERE, 90)
    assert lost.error is None
    lost.take(NOWHERE, 90 + STEADY_S)
    assert isinstance(lost.error, UnknownRequest)


def test_an_outage_every_few_seconds() -> None:
    """Redis is never there for long at a time: what it was there for in all counts, so that a reader has an end."""
    lost = watch(5.0)
    lost.take(QUEUED, 0)
    ended_at = None
    for now in range(10, 200, 5):
        lost.take(NOWHERE, now)
        lost.take(NOWHERE, now + 3)
        if lost.error is not None:
            ended_at = now + 3
            break
        lost.trouble("away", now + 3)
    assert ended_at == 10 + 5 * (STEADY_IN_ALL_S / 3 - 1) + 3


@pytest.mark.parametrize(("after_s", "is_unknown"), [(5.0, True), (6.0, False)])
def test_an_id_of_nobody(after_s: float, is_unknown: bool) -> None:
    """A request's own result is given up as soon as its reader has looked for long enough."""
    found = watch(after_s)
    found.take(NOWHERE, 10)
    found.take(NOWHERE, 15)
    assert (found.error is not None) == is_unknown

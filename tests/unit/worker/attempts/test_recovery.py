"""What a worker remembers of what has just ended, and what it does with it once Redis is back."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from tasks.errors import BrokerUnavailable, JournalFailed
from tasks.journal.claim_answer import ClaimAnswer
from tasks.journal.items import Append, Held
from tasks.messages.journal import Claim
from tasks.worker.attempts.attempt import Attempt, Fenced
from tasks.worker.attempts.job import Job
from tasks.worker.attempts.recovery import Recovery, held_message

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.journal.writer import Journal
    from tasks.worker.attempts.attempt import Outcome
    from tasks.worker.attempts.publisher import Publisher


class FakeJournal:
    """Redis knows the last ids that it is given, and fills what it is told to."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        self.marked: set[str] = set()
        self.filled: list[str] = []
        self.error: dict[str, Exception] = {}

    def last_ids(self, task_ids: Sequence[str]) -> list[str]:
        return [self.known.get(task_id, "") for task_id in task_ids]

    def collected(self, task_ids: Sequence[str]) -> set[str]:
        return self.marked.intersection(task_ids)

    def fill(self, task_id: str, *_: Any) -> bool:
        if task_id in self.error:
            raise self.error[task_id]
        self.filled.append(task_id)
        return True


class FakePublisher:
    """Counts doubts, and remembers what was closed."""

    def __init__(self) -> None:
        self.doubts = 0
        self.closed: list[Attempt] = []

    def doubt(self) -> None:
        self.doubts += 1

    def close(self, attempt: Attempt) -> None:
        self.closed.append(attempt)


class FakeChannel:
    """A channel whose worker holds these tags."""

    unacked_key, unacked_index_key = "unacked", "unacked-index"

    def __init__(self, *tags: str) -> None:
        self.tags = tags
        self.restored: list[str] = []
        self.qos = SimpleNamespace(restore_by_tag=self.restored.append)

    def conn_or_acquire(self) -> Any:
        return self

    def __enter__(self) -> Any:
        return SimpleNamespace(hkeys=lambda _: [tag.encode() for tag in self.tags])

    def __exit__(self, *_: object) -> None:
        """Nothing is held open."""


class Parts:
    """A recovery between the fakes, with a clock that a test moves."""

    def __init__(self, **options: Any) -> None:
        self.journal, self.publisher, self.now = FakeJournal(), FakePublisher(), 100.0
        self.recovery = Recovery(
            cast("Journal", self.journal),
            cast("Publisher", self.publisher),
            "a@here#1",
            str,
            clock=lambda: self.now,
            **options,
        )

    def remember(self, task_id: str, outcome: Outcome | None = None, message: str = "{}") -> None:
        """A job is over, with a whole answer unless another outcome is given."""
        job = Job(task_id, "tier-under-3B")
        job.attempt = new_attempt(task_id, message)
        job.attempt.finish(outcome or job.attempt.end("stop"))
        job.attempt.note(job.attempt.end("stop"))
        self.recovery.remember(job)

    def reconnect(self, channel: FakeChannel | None = None) -> None:
        """Redis is back."""
        self.recovery.reconnect(channel or FakeChannel(), [])


def new_attempt(task_id: str, message: str = "{}") -> Attempt:
    first = Append.of(task_id, 0, Claim(attempt=1, worker="a@here#1", nonce="n"), "n")
    claim = ClaimAnswer(
        kind="claimed", attempt=1, crashes=0, entries=[], items=[first], owner="a@here#1", nonce="n", queued_ms=None
    )
    return Attempt(task_id, claim, "m", lambda: Held("tag", message))


def test_what_redis_lacks_is_written() -> None:
    """Of what has just ended the journals that Redis has cut short or lost are written, and no others."""
    parts = Parts()
    for task_id in ("whole", "short", "gone"):
        parts.remember(task_id)
    parts.journal.known = {"whole": "1-1", "short": "1-0"}
    parts.reconnect()
    assert parts.journal.filled == ["short", "gone"]
    assert parts.publisher.doubts == 1
    assert len(parts.publisher.closed) == 3


def test_what_was_deleted_on_purpose() -> None:
    """A journal whose answer a bulk job has written is not written again."""
    parts = Parts()
    for task_id in ("deleted", "gone"):
        parts.remember(task_id)
    parts.journal.marked = {"deleted"}
    parts.reconnect()
    assert parts.journal.filled == ["gone"]


def test_what_was_not_ended_here_is_not_remembered() -> None:
    """A request that another worker took over, or that was given back, is that worker's to write."""
    parts = Parts()
    parts.remember("fenced", Fenced())
    parts.remember("released", new_attempt("released").release(crashed=False))
    parts.recovery.remember(Job("never claimed", "tier-under-3B"))
    parts.reconnect()
    assert parts.journal.filled == []


def test_for_a_while() -> None:
    """What ended longer ago than Redis can forget is let go."""
    parts = Parts(keep_s=30.0)
    parts.remember("old")
    parts.now += 20
    parts.remember("new")
    parts.now += 15
    parts.reconnect()
    assert parts.journal.filled == ["new"]


def test_within_a_bound() -> None:
    """Of more than the bound the latest are kept."""
    parts = Parts(keep_bytes=1_000)
    for number in range(20):
        parts.remember(f"t{number}")
    parts.reconnect()
    assert 0 < len(parts.journal.filled) < 20
    assert parts.journal.filled[-1] == "t19"


def test_messages_count() -> None:
    """The bound is one for journals and messages together: a prompt may be larger than its answer."""
    parts = Parts(keep_bytes=10_000)
    for number in range(20):
        parts.remember(f"t{number}", message="x" * 2_000)
    parts.reconnect()
    assert parts.journal.filled == ["t16", "t17", "t18", "t19"]


def test_nothing_to_collect() -> None:
    """What is remembered of a request is one object to a garbage collection, which would go over all of an attempt's."""
    parts = Parts()
    gc.collect()
    before = len(gc.get_objects())
    for number in range(200):
        parts.remember(f"t{number}")
    parts.publisher.closed.clear()
    gc.collect()
    assert len(gc.get_objects()) - before < 2 * 200


def test_one_that_cannot_be_written(caplog: pytest.LogCaptureFixture) -> None:
    """It keeps no other from being written."""
    parts = Parts()
    for task_id in ("bad", "good"):
        parts.remember(task_id)
    parts.journal.error["bad"] = JournalFailed("WRONGTYPE")
    parts.reconnect()
    assert parts.journal.filled == ["good"]
    assert "the journal of request bad cannot be written again" in caplog.text


def test_away_again() -> None:
    """Celery is told of a lost connection, and connects again; nothing was given back before the journals were written."""
    parts, channel = Parts(), FakeChannel("orphan")
    parts.remember("gone")
    parts.journal.error["gone"] = BrokerUnavailable("away")
    with pytest.raises(ConnectionError, match="away"):
        parts.reconnect(channel)
    assert channel.restored == []
    parts.journal.error.clear()
    parts.reconnect(channel)
    assert (parts.journal.filled, channel.restored) == (["gone"], ["orphan"])


def test_what_is_no_message_of_ours() -> None:
    """A request without a message of kombu's, as in a pool's own test, holds nothing."""
    assert held_message(None) is None
    assert held_message(SimpleNamespace(delivery_tag="t", delivery_info={})) is None

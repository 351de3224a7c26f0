"""The publisher against a journal that is away, slow, fenced or gone."""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest

from tasks.errors import BrokerUnavailable, JournalFailed
from tasks.journal.writer import Append, ClaimAnswer
from tasks.messages.journal import Claim, End, Error, Start, Token, decode
from tasks.worker.attempts.attempt import Fenced, Flight
from tasks.worker.attempts.publisher import Publisher
from tests.support import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tasks.journal.writer import Journal, Status


class FakeJournal:
    """Remembers what is written; each call first raises what it is told to."""

    def __init__(self) -> None:
        self.calls: list[list[Append]] = []
        self.rewritten: list[list[Append]] = []
        self.statuses: dict[str, list[Status]] = {}
        self.error: Exception | None = None
        self.tries = 0
        self.free = threading.Event()
        self.free.set()

    def append(self, batch: Sequence[Append]) -> list[Status]:
        self._answer()
        self.calls.append(list(batch))
        return [self.statuses[item.task_id].pop(0) if self.statuses.get(item.task_id) else "ok" for item in batch]

    def rewrite(self, _task_id: str, entries: Sequence[Append]) -> bool:
        self._answer()
        self.rewritten.append(list(entries))
        return True

    def _answer(self) -> None:
        self.tries += 1
        self.free.wait(30)
        if self.error is not None:
            raise self.error

    def entries(self, task_id: str) -> list[Any]:
        """What was written of one request, in order."""
        return [decode(item.payload) for call in self.calls for item in call if item.task_id == task_id]


@pytest.fixture
def journal() -> FakeJournal:
    return FakeJournal()


@contextmanager
def publishing(journal: FakeJournal) -> Iterator[Publisher]:
    """A publisher that runs, and is stopped."""
    publisher = Publisher(cast("Journal", journal))
    publisher.start()
    try:
        yield publisher
    finally:
        journal.free.set()
        publisher.stop()
        assert not publisher.is_alive()


def new_flight(task_id: str = "t1") -> Flight:
    first = Append.of(task_id, 0, Claim(attempt=1, worker="a#1", nonce="n"), "n")
    claim = ClaimAnswer(
        kind="claimed", attempt=1, crashes=0, entries=[], items=[first], owner="a#1", nonce="n", queued_ms=None
    )
    return Flight(task_id, claim, "m", "r1")


def token(index: int, **values: Any) -> Token:
    return Token(attempt=1, index=index, ids=[100 + index], text=f"w{index} ", **values)


def start() -> Start:
    return Start(attempt=1, model="m", revision="r1", prompt_tokens=1, cached_tokens=0, prompt_hash="h")


def test_what_is_put_is_written_in_order(journal: FakeJournal) -> None:
    """Entries of one request keep their order, are numbered from one, and carry the claim's nonce."""
    flight = new_flight()
    end = flight.end("stop")
    with publishing(journal) as publisher:
        for entry in (start(), token(0), token(1), end):
            publisher.put([(flight, entry)])
        assert flight.wait() is end
    items = [item for call in journal.calls for item in call]
    assert [item.n for item in items] == list(range(1, len(items) + 1))
    assert {(item.attempt, item.nonce) for item in items} == {(1, "n")}
    said = journal.entries("t1")
    assert said[0] == start()
    assert said[-1] == end
    assert [each for entry in said if isinstance(entry, Token) for each in entry.ids] == [100, 101]
    assert flight.items[1:] == items


def test_one_call_for_all_streams(journal: FakeJournal) -> None:
    """What has come of many requests is one write."""
    flights = [new_flight(f"t{number}") for number in range(5)]
    with publishing(journal) as publisher:
        publisher.put([(flight, flight.end("stop")) for flight in flights])
        for flight in flights:
            flight.wait()
    assert [len(call) for call in journal.calls] == [5]
    assert (publisher.writes, publisher.entries) == (1, 5)


def test_tokens_coalesce_while_redis_is_away(journal: FakeJournal, caplog: pytest.LogCaptureFixture) -> None:
    """An outage of any length leaves one entry of many tokens, and nobody who puts has to wait."""
    caplog.set_level(logging.CRITICAL)
    flight = new_flight()
    journal.error = BrokerUnavailable("away")
    with publishing(journal) as publisher:
        publisher.put([(flight, start())])
        wait_until(lambda: journal.tries >= 1)
        for index in range(1000):
            publisher.put([(flight, token(index, logprobs=[{"id": index}]))])
        publisher.put([(flight, flight.end("length"))])
        assert flight.outcome is None
        journal.error = None
        flight.wait()
    said = journal.entries("t1")
    assert [entry.type for entry in said] == ["start", "token", "end"]
    assert said[1].index == 0
    assert said[1].ids == [100 + index for index in range(1000)]
    assert said[1].text == "".join(f"w{index} " for index in range(1000))
    assert said[1].logprobs == [{"id": index} for index in range(1000)]


def test_tokens_join_only_their_neighbours(journal: FakeJournal) -> None:
    """What stands between tokens stays between them; a token alone is written as it is."""
    journal.free.clear()
    flight, other = new_flight(), new_flight("t2")
    with publishing(journal) as publisher:
        publisher.put([(other, start())])
        wait_until(lambda: journal.tries == 1)
        publisher.put([(flight, token(0)), (flight, token(1)), (flight, start()), (flight, token(2))])
        publisher.put([(flight, flight.end("stop"))])
        journal.free.set()
        flight.wait()
    assert [(each.type, getattr(each, "ids", None)) for each in journal.entries("t1")] == [
        ("token", [100, 101]),
        ("start", None),
        ("token", [102]),
        ("end", None),
    ]
    assert journal.entries("t1")[0].logprobs is None


def test_tokens_of_two_kinds_are_never_joined(journal: FakeJournal) -> None:
    """However much waits for Redis, reasoning stays reasoning: each run of one kind is one entry."""
    journal.free.clear()
    flight, other = new_flight(), new_flight("t2")
    kinds = ["reasoning", "reasoning", "content", "reasoning", "content", "content"]
    with publishing(journal) as publisher:
        publisher.put([(other, start())])
        wait_until(lambda: journal.tries == 1)
        publisher.put([(flight, token(index, kind=kind)) for index, kind in enumerate(kinds)])
        publisher.put([(flight, flight.end("stop"))])
        journal.free.set()
        flight.wait()
    tokens = [entry for entry in journal.entries("t1") if isinstance(entry, Token)]
    assert [(entry.kind, entry.text) for entry in tokens] == [
        ("reasoning", "w0 w1 "),
        ("content", "w2 "),
        ("reasoning", "w3 "),
        ("content", "w4 w5 "),
    ]
    assert [each for entry in tokens for each in entry.ids] == list(range(100, 106))


def test_who_is_fenced_is_dropped(journal: FakeJournal, caplog: pytest.LogCaptureFixture) -> None:
    """A request that another worker has taken lands as fenced, writes nothing more, and fails none beside it."""
    lost, kept = new_flight("lost"), new_flight("kept")
    journal.statuses["lost"] = ["fenced"]
    with publishing(journal) as publisher:
        publisher.put([(lost, token(0)), (kept, token(0))])
        assert isinstance(lost.wait(), Fenced)
        publisher.put([(lost, token(1)), (lost, lost.end("stop")), (kept, kept.end("stop"))])
        assert isinstance(kept.wait(), End)
    assert isinstance(lost.outcome, Fenced)
    assert len(journal.entries("lost")) == 1
    assert "request lost was taken over or ended elsewhere" in caplog.text


@pytest.mark.parametrize("now", ["ok", "fenced"])
def test_a_lost_journal_is_written_anew(journal: FakeJournal, now: Any, caplog: pytest.LogCaptureFixture) -> None:
    """A journal that Redis has lost is written from memory, from the claim on; what it then answers counts."""
    flight = new_flight()
    journal.statuses["t1"] = ["ok", "gone", now]
    end = flight.end("stop")
    with publishing(journal) as publisher:
        publisher.put([(flight, token(0))])
        wait_until(lambda: journal.calls)
        publisher.put([(flight, end)])
        outcome = flight.wait()
    assert outcome == (end if now == "ok" else Fenced())
    (rewritten,) = journal.rewritten
    assert [decode(item.payload) for item in rewritten] == [
        Claim(attempt=1, worker="a#1", nonce="n"),
        token(0),
        end,
    ]
    assert journal.calls[-1] == [rewritten[-1]]
    assert "is gone from Redis" in caplog.text


def test_a_lost_journal_in_the_middle(journal: FakeJournal) -> None:
    """A request goes on after its journal was written anew."""
    flight = new_flight()
    journal.statuses["t1"] = ["gone"]
    with publishing(journal) as publisher:
        publisher.put([(flight, token(0))])
        wait_until(lambda: len(journal.calls) == 2)
        publisher.put([(flight, token(1)), (flight, flight.end("stop"))])
        assert isinstance(flight.wait(), End)
    assert len(journal.rewritten) == 1


def test_what_waiting_does_not_mend_fails_the_requests(journal: FakeJournal, caplog: pytest.LogCaptureFixture) -> None:
    """An error of Redis's own ends the requests that were to be written, and the publisher goes on."""
    flight, later = new_flight(), new_flight("later")
    journal.error = JournalFailed("WRONGTYPE")
    with publishing(journal) as publisher:
        publisher.put([(flight, token(0))])
        outcome = flight.wait()
        assert isinstance(outcome, Error)
        assert (outcome.code, outcome.message) == ("journal_failed", "WRONGTYPE")
        journal.error = None
        publisher.put([(later, later.end("stop"))])
        assert isinstance(later.wait(), End)
    assert "the journals of 1 requests cannot be written" in caplog.text


def test_stopping_writes_what_is_pending(journal: FakeJournal) -> None:
    """Nothing that was put is left behind by an orderly stop."""
    journal.free.clear()
    flight = new_flight()
    with publishing(journal) as publisher:
        publisher.put([(flight, token(0))])
        wait_until(lambda: journal.tries == 1)
        publisher.put([(flight, flight.end("stop"))])
    assert isinstance(flight.outcome, End)
    assert len(journal.entries("t1")) == 2


def test_stopping_while_redis_is_away_gives_up(journal: FakeJournal, caplog: pytest.LogCaptureFixture) -> None:
    """A worker that ends while Redis is away does not wait for it."""
    caplog.set_level(logging.CRITICAL)
    flight = new_flight()
    journal.error = BrokerUnavailable("away")
    with publishing(journal) as publisher:
        publisher.put([(flight, flight.end("stop"))])
        wait_until(lambda: journal.tries >= 2)
    outcome = flight.outcome
    assert isinstance(outcome, Error)
    assert outcome.message == "gave up while stopping: away"


def test_a_publisher_that_never_ran_stops(journal: FakeJournal) -> None:
    """Ending a worker that was refused at its start does nothing."""
    Publisher(cast("Journal", journal)).stop()
    assert journal.tries == 0

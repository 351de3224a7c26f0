"""The publisher against a journal that is away, slow, fenced or gone."""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest

from tasks.errors import BrokerUnavailable, JournalFailed
from tasks.journal.claim_answer import ClaimAnswer
from tasks.journal.items import Append
from tasks.messages.journal import Claim, End, Error, Start, Token, decode
from tasks.worker.attempts.attempt import Attempt, Fenced
from tasks.worker.attempts.publisher import Publisher
from tests.support import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tasks.journal.writer import Journal, Status


class FakeJournal:
    """Remembers what is written; each call first raises what it is told to."""

    def __init__(self) -> None:
        self.calls: list[list[Append]] = []
        self.filled: list[list[Append]] = []
        self.mine = True
        self.poison = ""
        self.statuses: dict[str, list[Status]] = {}
        self.error: Exception | None = None
        self.tries = 0
        self.free = threading.Event()
        self.free.set()

    def append(self, batch: Sequence[Append]) -> list[Status]:
        self._answer([item.task_id for item in batch])
        self.calls.append(list(batch))
        return [self.statuses[item.task_id].pop(0) if self.statuses.get(item.task_id) else "ok" for item in batch]

    def fill(self, task_id: str, items: Sequence[Append], _identity: str, _held: Callable[[], Any]) -> bool:
        self._answer([task_id])
        self.filled.append(list(items))
        return self.mine

    def _answer(self, task_ids: list[str]) -> None:
        self.tries += 1
        self.free.wait(30)
        if self.error is not None and (not self.poison or self.poison in task_ids):
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


def new_attempt(task_id: str = "t1") -> Attempt:
    first = Append.of(task_id, 0, Claim(attempt=1, worker="a#1", nonce="n"), "n")
    claim = ClaimAnswer(
        kind="claimed", attempt=1, crashes=0, entries=[], items=[first], owner="a#1", nonce="n", queued_ms=None
    )
    return Attempt(task_id, claim, "m")


def token(index: int, **values: Any) -> Token:
    return Token(attempt=1, index=index, ids=[100 + index], text=f"w{index} ", **values)


def start() -> Start:
    return Start(attempt=1, model="m", revision="r1", prompt_tokens=1, cached_tokens=0, prompt_hash="h")


def test_what_is_put_is_written_in_order(journal: FakeJournal) -> None:
    """Entries of one request keep their order, are numbered from one, and carry the claim's nonce."""
    attempt = new_attempt()
    end = attempt.end("stop")
    with publishing(journal) as publisher:
        for entry in (start(), token(0), token(1), end):
            publisher.put([(attempt, entry)])
        assert attempt.wait() is end
    items = [item for call in journal.calls for item in call]
    assert [item.n for item in items] == list(range(1, len(items) + 1))
    assert {(item.attempt, item.nonce) for item in items} == {(1, "n")}
    said = journal.entries("t1")
    assert said[0] == start()
    assert said[-1] == end
    assert [id_ for entry in said if isinstance(entry, Token) for id_ in entry.ids] == [100, 101]
    assert attempt.items[1:] == items


def test_one_call_for_all_streams(journal: FakeJournal) -> None:
    """What has come of many requests is one write."""
    attempts = [new_attempt(f"t{number}") for number in range(5)]
    with publishing(journal) as publisher:
        publisher.put([(attempt, attempt.end("stop")) for attempt in attempts])
        for attempt in attempts:
            attempt.wait()
    assert [len(call) for call in journal.calls] == [5]
    assert (publisher.writes, publisher.entries) == (1, 5)


def test_tokens_coalesce_while_redis_is_away(journal: FakeJournal, caplog: pytest.LogCaptureFixture) -> None:
    """An outage of any length leaves one entry of many tokens, and nobody who puts has to wait."""
    caplog.set_level(logging.CRITICAL)
    attempt = new_attempt()
    journal.error = BrokerUnavailable("away")
    with publishing(journal) as publisher:
        publisher.put([(attempt, start())])
        wait_until(lambda: journal.tries >= 1)
        for index in range(1000):
            publisher.put([(attempt, token(index, logprobs=[{"id": index}]))])
        publisher.put([(attempt, attempt.end("length"))])
        assert attempt.outcome is None
        journal.error = None
        attempt.wait()
    said = journal.entries("t1")
    assert [entry.type for entry in said] == ["start", "token", "end"]
    assert said[1].index == 0
    assert said[1].ids == [100 + index for index in range(1000)]
    assert said[1].text == "".join(f"w{index} " for index in range(1000))
    assert said[1].logprobs == [{"id": index} for index in range(1000)]


def test_tokens_join_only_their_neighbours(journal: FakeJournal) -> None:
    """What stands between tokens stays between them; a token alone is written as it is."""
    journal.free.clear()
    attempt, other = new_attempt(), new_attempt("t2")
    with publishing(journal) as publisher:
        publisher.put([(other, start())])
        wait_until(lambda: journal.tries == 1)
        publisher.put([(attempt, token(0)), (attempt, token(1)), (attempt, start()), (attempt, token(2))])
        publisher.put([(attempt, attempt.end("stop"))])
        journal.free.set()
        attempt.wait()
    assert [(entry.type, getattr(entry, "ids", None)) for entry in journal.entries("t1")] == [
        ("token", [100, 101]),
        ("start", None),
        ("token", [102]),
        ("end", None),
    ]
    assert journal.entries("t1")[0].logprobs is None


def test_tokens_of_two_kinds_are_never_joined(journal: FakeJournal) -> None:
    """However much waits for Redis, reasoning stays reasoning: each run of one kind is one entry."""
    journal.free.clear()
    attempt, other = new_attempt(), new_attempt("t2")
    kinds = ["reasoning", "reasoning", "content", "reasoning", "content", "content"]
    with publishing(journal) as publisher:
        publisher.put([(other, start())])
        wait_until(lambda: journal.tries == 1)
        publisher.put([(attempt, token(index, kind=kind)) for index, kind in enumerate(kinds)])
        publisher.put([(attempt, attempt.end("stop"))])
        journal.free.set()
        attempt.wait()
    tokens = [entry for entry in journal.entries("t1") if isinstance(entry, Token)]
    assert [(entry.kind, entry.text) for entry in tokens] == [
        ("reasoning", "w0 w1 "),
        ("content", "w2 "),
        ("reasoning", "w3 "),
        ("content", "w4 w5 "),
    ]
    assert [id_ for entry in tokens for id_ in entry.ids] == list(range(100, 106))


def test_who_is_fenced_is_dropped(journal: FakeJournal, caplog: pytest.LogCaptureFixture) -> None:
    """A request that another worker has taken finishes as fenced, writes nothing more, and fails none beside it."""
    lost, kept = new_attempt("lost"), new_attempt("kept")
    journal.statuses["lost"] = ["fenced"]
    with publishing(journal) as publisher:
        publisher.put([(lost, token(0)), (kept, token(0))])
        assert isinstance(lost.wait(), Fenced)
        publisher.put([(lost, token(1)), (lost, lost.end("stop")), (kept, kept.end("stop"))])
        assert isinstance(kept.wait(), End)
    assert isinstance(lost.outcome, Fenced)
    assert len(journal.entries("lost")) == 1
    assert "request lost was taken over or ended elsewhere" in caplog.text


@pytest.mark.parametrize("status", ["gone", "behind"])
@pytest.mark.parametrize("mine", [True, False])
def test_what_redis_lost_is_written_again(
    journal: FakeJournal, status: Any, mine: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A journal that Redis has lost, in part or wholly, is written from memory, unless another worker was first."""
    attempt = new_attempt()
    journal.statuses["t1"] = ["ok", status]
    journal.mine = mine
    end = attempt.end("stop")
    with publishing(journal) as publisher:
        publisher.put([(attempt, token(0))])
        wait_until(lambda: journal.calls)
        publisher.put([(attempt, end)])
        outcome = attempt.wait()
    assert outcome == (end if mine else Fenced())
    (filled,) = journal.filled
    assert [decode(item.payload) for item in filled] == [Claim(attempt=1, worker="a#1", nonce="n"), token(0), end]
    assert "has lost a part of the journal" in caplog.text


def test_in_the_middle(journal: FakeJournal) -> None:
    """A request goes on after its journal was filled."""
    attempt = new_attempt()
    journal.statuses["t1"] = ["behind"]
    with publishing(journal) as publisher:
        publisher.put([(attempt, token(0))])
        wait_until(lambda: journal.filled)
        publisher.put([(attempt, token(1)), (attempt, attempt.end("stop"))])
        assert isinstance(attempt.wait(), End)
    assert len(journal.filled) == 1


def test_doubt(journal: FakeJournal) -> None:
    """Once Redis is back the journals of all open requests are filled, those that have just ended included; no others are."""
    running, ended, over, lost = (new_attempt(task_id) for task_id in ("running", "ended", "over", "lost"))
    with publishing(journal) as publisher:
        for attempt in (running, ended, over, lost):
            publisher.open(attempt)
        publisher.put([(ended, ended.end("stop"))])
        ended.wait()
        publisher.close(over)
        lost.finish(Fenced())
        publisher.doubt()
        wait_until(lambda: len(journal.filled) == 2)
        publisher.put([(running, running.end("stop"))])
        running.wait()
    assert {items[0].task_id for items in journal.filled} == {"running", "ended"}


@pytest.mark.parametrize("error", [JournalFailed("WRONGTYPE"), KeyError("codec")])
def test_who_cannot_be_written_ends_alone(
    journal: FakeJournal, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """What keeps one journal from being written, be it a fault of ours, ends that request; the others and the thread go on."""
    bad, good = new_attempt("bad"), new_attempt("good")
    journal.error, journal.poison = error, "bad"
    with publishing(journal) as publisher:
        publisher.put([(bad, token(0)), (good, token(0))])
        outcome = bad.wait()
        publisher.put([(good, good.end("stop"))])
        assert isinstance(good.wait(), End)
        assert publisher.is_alive()
    assert isinstance(outcome, Error)
    if isinstance(error, JournalFailed):
        assert (outcome.code, outcome.message) == ("journal_failed", "WRONGTYPE")
    else:
        assert (outcome.code, outcome.message) == (
            "internal_error",
            "the request's journal could not be written (KeyError)",
        )
    assert [entry.type for entry in journal.entries("good")] == ["token", "end"]
    assert "trying them one by one" in caplog.text


def test_an_entry_that_cannot_be_encoded(journal: FakeJournal, caplog: pytest.LogCaptureFixture) -> None:
    """An entry that is not JSON ends its request with an error that its readers see, after what could be written."""
    attempt, good = new_attempt(), new_attempt("good")
    with publishing(journal) as publisher:
        publisher.put([(attempt, token(0))])
        wait_until(lambda: journal.calls)
        publisher.put([(attempt, token(1, logprobs=[{"id": object()}])), (good, good.end("stop"))])
        outcome = attempt.wait()
        assert isinstance(good.wait(), End)
    assert isinstance(outcome, Error)
    (filled,) = journal.filled
    assert [decode(item.payload) for item in filled[1:]] == [token(0), outcome]
    assert "cannot be written" in caplog.text


def test_stopping_writes_what_is_pending(journal: FakeJournal) -> None:
    """Nothing that was put is left behind by an orderly stop."""
    journal.free.clear()
    attempt = new_attempt()
    with publishing(journal) as publisher:
        publisher.put([(attempt, token(0))])
        wait_until(lambda: journal.tries == 1)
        publisher.put([(attempt, attempt.end("stop"))])
    assert isinstance(attempt.outcome, End)
    assert len(journal.entries("t1")) == 2


def test_stopping_while_redis_is_away_gives_up(journal: FakeJournal, caplog: pytest.LogCaptureFixture) -> None:
    """A worker that ends while Redis is away does not wait for it: another one goes on with the request."""
    caplog.set_level(logging.CRITICAL)
    attempt = new_attempt()
    journal.error = BrokerUnavailable("away")
    with publishing(journal) as publisher:
        publisher.put([(attempt, attempt.end("stop"))])
        wait_until(lambda: journal.tries >= 2)
    assert attempt.outcome == attempt.release(crashed=False)


def test_a_publisher_that_never_ran_stops(journal: FakeJournal) -> None:
    """Ending a worker that was refused at its start does nothing."""
    Publisher(cast("Journal", journal)).stop()
    assert journal.tries == 0


def test_an_engine_s_reader_writes_itself(journal: FakeJournal) -> None:
    """Without a hand-over to the publisher's thread, which is not even started here; a start goes out with the first token."""
    attempt, publisher = new_attempt(), Publisher(cast("Journal", journal))
    publisher.write([(attempt, start())])
    assert not journal.calls
    publisher.write([(attempt, token(0))])
    publisher.write([(attempt, attempt.end("stop"))])
    assert [len(call) for call in journal.calls] == [2, 1]
    assert [entry.type for entry in journal.entries("t1")] == ["start", "token", "end"]
    assert isinstance(attempt.outcome, End)


@pytest.mark.parametrize(("status", "calls"), [("ok", 2), ("heard", 5)])
def test_batch_work_that_nobody_reads(
    journal: FakeJournal, status: Status, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first token is written at once, and the rest with its end; where somebody listens each one is."""
    monkeypatch.setattr("tasks.worker.attempts.outbox.QUIET_S", 600.0)
    attempt = new_attempt()
    attempt.gives_way = True
    journal.statuses["t1"] = [status] * 10
    with publishing(journal) as publisher:
        publisher.open(attempt)
        for index in range(4):
            publisher.write([(attempt, Token(attempt=1, index=index, ids=[index], text="x"))])
        publisher.write([(attempt, End(attempt=1, index=4, finish_reason="length", usage={}))])
        attempt.wait()
    assert len(journal.calls) == calls
    assert [token for entry in journal.entries("t1") if isinstance(entry, Token) for token in entry.ids] == [0, 1, 2, 3]
    assert isinstance(attempt.outcome, End)


def test_an_end_on_its_way_is_known_before_redis_answers(journal: FakeJournal) -> None:
    """A reader may hear of an end before the worker does, and must not see the request among those that run."""
    attempt = new_attempt()
    journal.free.clear()
    with publishing(journal) as publisher:
        seen = [attempt.is_ending]
        for entry in (start(), token(0), attempt.end("stop")):
            publisher.put([(attempt, entry)])
            seen.append(attempt.is_ending)
        assert seen == [False, False, False, True]
        assert attempt.outcome is None


def test_a_start_alone_is_written_too(journal: FakeJournal) -> None:
    """A prompt that takes long says soon that it is computed."""
    attempt = new_attempt()
    with publishing(journal) as publisher:
        publisher.write([(attempt, start())])
        wait_until(lambda: [entry.type for entry in journal.entries("t1")] == ["start"])


@pytest.mark.parametrize("error", [BrokerUnavailable("away"), JournalFailed("odd")])
def test_what_a_reader_cannot_write_is_tried_again(
    journal: FakeJournal, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """The reader goes on at once, and what comes meanwhile stands behind."""
    caplog.set_level(logging.CRITICAL)
    attempt, publisher = new_attempt(), Publisher(cast("Journal", journal))
    journal.error = error
    publisher.write([(attempt, token(0))])
    publisher.write([(attempt, token(1)), (attempt, attempt.end("stop"))])
    assert journal.tries == 1
    journal.error = None
    publisher.start()
    attempt.wait()
    publisher.stop()
    said = journal.entries("t1")
    assert [entry.type for entry in said] == ["token", "token", "end"]
    assert [item.n for call in journal.calls for item in call] == [1, 2, 3]


def test_what_a_reader_finds_lost_is_written_again(journal: FakeJournal, caplog: pytest.LogCaptureFixture) -> None:
    """Redis has lost a part of the journal: the publisher's thread writes it, while the reader goes on."""
    caplog.set_level(logging.CRITICAL)
    attempt, publisher = new_attempt(), Publisher(cast("Journal", journal))
    journal.statuses["t1"] = ["behind", "behind"]
    publisher.write([(attempt, token(0))])
    assert not journal.filled
    publisher.start()
    wait_until(lambda: journal.filled)
    publisher.stop()
    assert journal.filled == [attempt.items]

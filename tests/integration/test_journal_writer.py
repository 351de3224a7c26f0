"""Claims, appends, releases and ends on a real server."""

from __future__ import annotations

import itertools
import json
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.errors import BrokerUnavailable, JournalFailed
from tasks.journal.items import PAGE_BYTES, Append, Held
from tasks.journal.writer import PAGE, Journal
from tasks.messages.journal import TYPES, Claim, End, Entry, Error, Release, Start, Token, encode
from tasks.server import keys
from tasks.server.connection import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis import Redis

TASK = "written-1"  # no reader of another module listens to it
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.none(), max_size=1)
A, B = "a@here#1", "b@here#1"


@pytest.fixture
def client(redis_url: str) -> Iterator[Redis]:
    """A client as a worker has it."""
    with closing(connect(redis_url)) as client:
        yield client


@pytest.fixture
def journal(client: Redis) -> Journal:
    """A journal whose owners A and B are alive."""
    for identity in (A, B):
        client.set(keys.alive(identity), 1)
    return Journal(client, ttl_s=60)


def start(attempt: int = 1) -> Start:
    return Start(attempt=attempt, model="m", revision="r", prompt_tokens=7, cached_tokens=0, prompt_hash="h")


def token(index: int, text: str = "x", attempt: int = 1) -> Token:
    return Token(attempt=attempt, index=index, ids=[index], text=text)


def end(index: int = 0, reason: str = "stop", attempt: int = 1) -> End:
    return End(attempt=attempt, index=index, finish_reason=reason, usage={"completion_tokens": index})


def die(client: Redis, identity: str) -> None:
    client.delete(keys.alive(identity))


def put(journal: Journal, *entries: Entry, n: int = 1, task_id: str = TASK) -> list[str]:
    return list(journal.append([Append.of(task_id, n + i, entry) for i, entry in enumerate(entries)]))


class TestClaim:
    def test_first(self, journal: Journal, client: Redis) -> None:
        """A request nobody has claimed is claimed as attempt 1, and the claim is in the stream, on a day's lease."""
        answer = journal.claim(TASK, A)
        assert (answer.kind, answer.attempt, answer.crashes, answer.entries) == ("claimed", 1, 0, [])
        assert journal.read(TASK) == [Claim(attempt=1, worker=A, crashes=0, nonce=answer.nonce)]
        assert 86_000_000 < client.pttl(keys.stream(TASK)) <= 86_400_000

    def test_busy(self, journal: Journal) -> None:
        """While its owner lives, a request is busy for others."""
        journal.claim(TASK, A)
        answer = journal.claim(TASK, B)
        assert (answer.kind, answer.owner, answer.entries, answer.items) == ("busy", A, [], [])

    def test_own_claim_that_is_open(self, journal: Journal) -> None:
        """A worker that finds a claim of its own, which none of its threads has, takes it over; nothing has crashed."""
        first = journal.claim(TASK, A)
        put(journal, start(), token(0))
        answer = journal.claim(TASK, A)
        assert (answer.kind, answer.attempt, answer.crashes) == ("claimed", 2, 0)
        assert journal.append([Append.of(TASK, 3, token(1), first.nonce)]) == ["fenced"]

    def test_owner_without_the_message(self, journal: Journal, client: Redis) -> None:
        """A claim counts while its owner holds the message; once that is given back, or lost, another takes the request over."""
        client.hset(keys.unacked(A), "tag", "message")
        journal.claim(TASK, A, delivery="tag")
        put(journal, start(), token(0))
        assert journal.claim(TASK, B).kind == "busy"
        client.hdel(keys.unacked(A), "tag")
        answer = journal.claim(TASK, B)
        assert (answer.kind, answer.attempt, answer.crashes) == ("claimed", 2, 0)
        assert answer.entries[1:] == [start(), token(0)]

    def test_repeated(self, journal: Journal) -> None:
        """A claim that is sent again with its nonce, because the reply was lost, gets the same answer and no entry."""
        first = journal.claim(TASK, A, nonce="feed")
        assert journal.claim(TASK, A, nonce="feed") == first
        assert len(journal.read(TASK)) == 1

    def test_dead_owner(self, journal: Journal, client: Redis) -> None:
        """A dead owner's request goes on as the next attempt with all that was emitted; its death counts as a crash."""
        journal.claim(TASK, A)
        put(journal, start(), token(0), token(1))
        die(client, A)
        answer = journal.claim(TASK, B)
        assert (answer.kind, answer.attempt, answer.crashes) == ("claimed", 2, 1)
        assert answer.entries[1:] == [start(), token(0), token(1)]
        assert [(item.attempt, item.n) for item in answer.items] == [(1, 0), (1, 1), (1, 2), (1, 3), (2, 0)]

    def test_dead_before_start(self, journal: Journal, client: Redis) -> None:
        """An owner that died before its engine had the request does not make it a suspect."""
        journal.claim(TASK, A)
        die(client, A)
        assert journal.claim(TASK, B).crashes == 0

    def test_crashes_add_up(self, journal: Journal, client: Redis) -> None:
        """Three owners that die with the request in their batch make three crashes."""
        for attempt in (1, 2, 3):
            owner = f"c@here#{attempt}"
            client.set(keys.alive(owner), 1)
            assert journal.claim(TASK, owner).crashes == attempt - 1
            put(journal, start(attempt))
            die(client, owner)
        assert journal.claim(TASK, B).crashes == 3

    @pytest.mark.parametrize(("crashed", "crashes"), [(True, 1), (False, 0)])
    def test_released(self, journal: Journal, crashed: bool, crashes: int) -> None:
        """A released request is claimed though its owner lives; only a release after a crash counts as one."""
        answer = journal.claim(TASK, A)
        put(journal, start(), token(0))
        assert journal.release(TASK, 1, 3, crashed=crashed, nonce=answer.nonce) == "ok"
        again = journal.claim(TASK, A)
        assert (again.kind, again.attempt, again.crashes) == ("claimed", 2, crashes)
        assert again.entries[-1] == Release(attempt=1, crashed=crashed)

    @pytest.mark.parametrize("last", [end(1), Error(attempt=1, code="expired", message="late")])
    def test_ended(self, journal: Journal, client: Redis, last: End | Error) -> None:
        """An ended request is answered with all its entries, whether its owner lives or not."""
        journal.claim(TASK, A)
        put(journal, start(), token(0), last)
        die(client, A)
        answer = journal.claim(TASK, B)
        assert (answer.kind, answer.entries[-1], answer.items) == ("ended", last, [])
        assert len(journal.read(TASK)) == 4

    def test_cancelled(self, journal: Journal) -> None:
        """A marked request is claimed as cancelled, so that its claimant writes the end and its usage."""
        journal.mark_cancelled(TASK)
        answer = journal.claim(TASK, A)
        assert (answer.kind, answer.attempt) == ("cancelled", 1)
        assert put(journal, end(reason="cancelled")) == ["ok"]
        assert journal.claim(TASK, B).kind == "ended"

    def test_cancelled_while_busy(self, journal: Journal) -> None:
        """A mark does not take a request from its living owner."""
        journal.claim(TASK, A)
        journal.mark_cancelled(TASK)
        assert journal.claim(TASK, B).kind == "busy"
        assert journal.cancelled([TASK, "other"]) == {TASK}
        assert journal.cancelled([]) == set()

    def test_cancelled_unless_running(self, journal: Journal) -> None:
        """A mark for queued requests alone is reported by claims, aborts nothing, and weakens no other mark."""
        journal.mark_cancelled(TASK, running=False)
        assert journal.cancelled([TASK]) == set()
        assert journal.claim(TASK, A).kind == "cancelled"
        journal.mark_cancelled(TASK)
        journal.mark_cancelled(TASK, running=False)
        assert journal.cancelled([TASK]) == {TASK}

    def test_queued_time(self, journal: Journal, client: Redis) -> None:
        """The ledger's time becomes the first claim's waiting time, and the ledger's entry goes."""
        seconds, micros = client.time()
        client.hset(keys.LEDGER, TASK, json.dumps({"message": '{"at": 5}', "at": seconds + micros / 1e6 - 2.5}))
        answer = journal.claim(TASK, A, nonce="feed")
        assert answer.queued_ms is not None
        assert 2_500 <= answer.queued_ms < 60_000
        assert not client.hexists(keys.LEDGER, TASK)
        assert journal.claim(TASK, A, nonce="feed").queued_ms == answer.queued_ms

    @pytest.mark.parametrize("ledger", ["", "[]", "{", '{"at":"soon"}', '{"at":null}', "7"])
    def test_unreadable_ledger(self, journal: Journal, client: Redis, ledger: str) -> None:
        """A ledger entry that is not ours leaves the waiting time unknown, and goes."""
        client.hset(keys.LEDGER, TASK, ledger)
        assert journal.claim(TASK, A).queued_ms is None
        assert not client.hexists(keys.LEDGER, TASK)

    def test_more_than_a_page(self, journal: Journal) -> None:
        """A journal of any length is read a page at a time, and nothing of it is missing."""
        journal.claim(TASK, A)
        count = 2 * PAGE + 1
        put(journal, start(), *(token(index) for index in range(count)))
        assert journal.release(TASK, 1, count + 2, crashed=False) == "ok"
        answer = journal.claim(TASK, B)
        assert [entry.index for entry in answer.entries if isinstance(entry, Token)] == list(range(count))
        assert [item.n for item in answer.items] == [*range(count + 3), 0]

    def test_garbage_in_the_stream(self, journal: Journal, client: Redis) -> None:
        """Entries that are not ours are no claim, no end and no reason to fail."""
        for n, payload in enumerate(
            [b"\xff\xfe", b"{", b"[]", b'{"type":7}', b'{"type":"claim","worker":3,"crashes":"x"}']
        ):
            client.xadd(keys.stream(TASK), {"d": payload}, id=f"1-{n}")
        answer = journal.claim(TASK, A)
        assert (answer.kind, answer.attempt, answer.crashes, answer.entries) == ("claimed", 2, 0, [])

    @settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(st.tuples(st.sampled_from(sorted(TYPES)), VALUES, VALUES), min_size=1, max_size=5))
    def test_malformed_entries(self, journal: Journal, client: Redis, entries: list[tuple[str, Any, Any]]) -> None:
        """Entries whose fields are of any type give one of the four answers, and never an error."""
        client.delete(keys.stream(TASK))
        for n, (kind, one, two) in enumerate(entries):
            record = {"type": kind, "worker": one, "crashes": two, "crashed": one, "nonce": two, "index": one}
            client.xadd(keys.stream(TASK), {"d": json.dumps(record)}, id=f"{1 + n // 2}-{n}")
        answer = journal.claim(TASK, A)
        assert answer.kind in {"claimed", "ended", "busy"}
        assert 0 <= answer.crashes <= 1_001


class TestAppend:
    def test_statuses(self, journal: Journal, client: Redis) -> None:
        """Each item has its own status: a fenced and a lost journal do not keep the third from being written."""
        for task_id in ("fenced", "fine"):
            journal.claim(task_id, A)
        die(client, A)
        journal.claim("fenced", B)
        batch = [Append.of(task_id, 1, token(0)) for task_id in ("fenced", "lost", "fine")]
        assert journal.append(batch) == ["fenced", "gone", "ok"]
        assert not client.exists(keys.stream("lost"))
        assert journal.read("fine")[-1] == token(0)
        assert journal.append([]) == []

    def test_published(self, journal: Journal, client: Redis) -> None:
        """What is appended is published unchanged, in order; what is refused is not."""
        with closing(client.pubsub()) as pubsub:  # type: ignore[no-untyped-call]
            pubsub.subscribe(keys.stream(TASK))
            answer = journal.claim(TASK, A)
            put(journal, token(0, "héllo"), end(1), token(1))
            heard: list[bytes] = []
            deadline = time.monotonic() + 30
            while len(heard) < 3 and time.monotonic() < deadline:
                message = pubsub.get_message(ignore_subscribe_messages=True, timeout=0.1)
                heard += [message["data"]] if message else []
        claim = Claim(attempt=1, worker=A, nonce=answer.nonce)
        assert [json.loads(text) for text in heard] == [
            json.loads(encode(entry)) for entry in (claim, token(0, "héllo"), end(1))
        ]

    def test_retried(self, journal: Journal, client: Redis) -> None:
        """A batch whose reply was lost can be sent again: what was written is ok, and not written twice."""
        journal.claim(TASK, A)
        batch = [Append.of(TASK, 1, start()), Append.of(TASK, 2, token(0)), Append.of(TASK, 3, end(1))]
        assert journal.append(batch[:2]) == ["ok", "ok"]
        assert journal.append(batch) == ["ok", "ok", "ok"]
        assert journal.append(batch) == ["ok", "ok", "ok"]
        assert client.xlen(keys.stream(TASK)) == 4

    def test_same_id_other_payload(self, journal: Journal) -> None:
        """An id that is taken by something else is no retry, but a fence."""
        journal.claim(TASK, A)
        put(journal, token(0, "mine"))
        assert put(journal, token(0, "other")) == ["fenced"]

    @pytest.mark.parametrize(
        "last", [end(1), Error(attempt=1, code="expired", message="late"), Release(attempt=1, crashed=False)]
    )
    def test_after_the_last_word(self, journal: Journal, last: Entry) -> None:
        """After an end, an error or its own release an attempt can append nothing more."""
        journal.claim(TASK, A)
        assert put(journal, token(0), last) == ["ok", "ok"]
        assert put(journal, token(1), n=3) == ["fenced"]

    def test_time_to_live(self, journal: Journal, client: Redis) -> None:
        """An ended journal lives as long as was configured."""
        journal.claim(TASK, A)
        put(journal, end())
        assert 0 < client.pttl(keys.stream(TASK)) <= 60_000

    def test_never_revives(self, journal: Journal, client: Redis) -> None:
        """An append to an expired journal does not bring it back."""
        journal.claim(TASK, A)
        client.delete(keys.stream(TASK))
        assert put(journal, token(0)) == ["gone"]
        assert client.exists(keys.stream(TASK)) == 0

    def test_claimed_anew_after_a_loss(self, journal: Journal, client: Redis) -> None:
        """The nonce fences the owner of an attempt that Redis lost and another worker claimed under the same number."""
        old = journal.claim(TASK, A)
        client.delete(keys.stream(TASK))
        item = Append.of(TASK, 9, token(8), old.nonce)
        assert journal.append([item]) == ["gone"]
        new = journal.claim(TASK, B)
        assert new.attempt == old.attempt
        assert journal.append([item]) == ["fenced"]
        assert journal.append([Append.of(TASK, 1, start(), new.nonce)]) == ["ok"]

    def test_one_look(self, journal: Journal, client: Redis) -> None:
        """An append looks at the last entry of each journal, and at no other."""
        items, _ = written(journal, client, 1)
        client.config_resetstat()
        batch = [Append.of(TASK, n, token(n - 2), items[-1].nonce) for n in (3, 4)]
        assert journal.append(batch) == ["ok", "ok"]
        calls = {name: value["calls"] for name, value in client.info("commandstats").items()}
        assert (calls["cmdstat_xrevrange"], calls["cmdstat_xadd"], calls.get("cmdstat_xrange", 0)) == (1, 2, 0)

    def test_entries_of_an_older_version(self, journal: Journal, client: Redis) -> None:
        """Entries that do not say whose they are, as earlier versions wrote them, are followed by those of their own claim."""
        items, stream = written(journal, client, 2)
        roll_back(client, [(entry_id, {b"d": fields[b"d"]}) for entry_id, fields in stream], len(stream))
        assert journal.append([Append.of(TASK, 4, token(2), "feed")]) == ["fenced"]
        assert journal.append([Append.of(TASK, 4, token(2), items[-1].nonce)]) == ["ok"]

    def test_not_a_stream(self, journal: Journal, client: Redis) -> None:
        """A key of another type fences its own request, and no other."""
        client.set(keys.stream("odd"), "x")
        journal.claim(TASK, A)
        batch = [Append.of("odd", 1, token(0)), Append.of("odd", 1, token(0), "feed"), Append.of(TASK, 1, token(0))]
        assert journal.append(batch) == ["fenced", "fenced", "ok"]
        with pytest.raises(JournalFailed, match=r"claim of odd: .*WRONGTYPE"):
            journal.claim("odd", A)

    def test_out_of_memory(self, journal: Journal, client: Redis) -> None:
        """A server without memory refuses the whole batch as unavailable; the retry writes it."""
        journal.claim(TASK, A)
        client.config_set("maxmemory", 1)
        try:
            with pytest.raises(BrokerUnavailable, match="Redis refuses"):
                put(journal, token(0))
        finally:
            client.config_set("maxmemory", 0)
        assert put(journal, token(0)) == ["ok"]

    def test_scripts_flushed(self, journal: Journal, client: Redis) -> None:
        """A server that has forgotten the scripts is given them again."""
        client.script_flush()
        journal.claim(TASK, A)
        assert put(journal, token(0)) == ["ok"]


def written(journal: Journal, client: Redis, count: int, identity: str = A) -> tuple[list[Append], Any]:
    """The items of a claim with a start and so many tokens, and the stream that they make."""
    answer = journal.claim(TASK, identity)
    said: list[Entry] = [start(answer.attempt), *(token(index, attempt=answer.attempt) for index in range(count))]
    items = [*answer.items, *(Append.of(TASK, n, entry, answer.nonce) for n, entry in enumerate(said, 1))]
    assert set(journal.append(items[-len(said) :])) == {"ok"}
    return items, entries(client)


def entries(client: Redis) -> list[Any]:
    """What the stream holds."""
    found: Any = client.xrange(keys.stream(TASK))
    return list(found)


def said(stream: Any) -> list[tuple[bytes, bytes]]:
    """Its entries as a reader sees them."""
    return [(entry_id, fields[b"d"]) for entry_id, fields in stream]


def roll_back(client: Redis, stream: Any, count: int) -> None:
    """Have Redis know no more than so many entries of a stream, as after a power loss."""
    client.delete(keys.stream(TASK))
    for entry_id, fields in stream[:count]:
        client.xadd(keys.stream(TASK), fields, id=entry_id)


class TestRolledBack:
    """Redis has come back older than it was, or empty."""

    @pytest.mark.parametrize("left", range(8))
    def test_filled(self, journal: Journal, client: Redis, left: int) -> None:
        """Whatever Redis still has of a journal, an append leaves no hole: it says so, and the owner writes what is missing."""
        items, stream = written(journal, client, 5)
        roll_back(client, stream, left)
        after = Append.of(TASK, 7, token(5), items[-1].nonce)
        expected = {0: "gone", 7: "ok"}.get(left, "behind")
        assert journal.append([after]) == [expected]
        assert journal.fill(TASK, [*items, after], A)
        assert said(entries(client)[:7]) == said(stream)
        assert journal.read(TASK)[-1] == token(5)
        assert left == 7 or client.pttl(keys.stream(TASK)) > 60_000
        assert journal.append([Append.of(TASK, 8, end(6), items[-1].nonce)]) == ["ok"]

    def test_nothing_is_missing(self, journal: Journal, client: Redis) -> None:
        """A journal that has everything stays as it is, and is not published again."""
        items, stream = written(journal, client, 2)
        with closing(client.pubsub()) as pubsub:  # type: ignore[no-untyped-call]
            pubsub.subscribe(keys.stream(TASK))
            assert pubsub.get_message(timeout=60)["type"] == "subscribe"
            assert journal.fill(TASK, items, A)
            assert journal.append([Append.of(TASK, 4, end(2), items[-1].nonce)]) == ["heard"]
            assert b'"end"' in pubsub.get_message(timeout=60)["data"]
        assert entries(client)[:-1] == stream

    def test_long(self, journal: Journal, client: Redis) -> None:
        """What takes many calls, because no one call may keep Redis for long, is written whole and in order."""
        answer = journal.claim(TASK, A)
        text = "x" * (PAGE_BYTES // 3)
        said = [Append.of(TASK, n, token(n - 1, text), answer.nonce) for n in range(1, 12)]
        client.delete(keys.stream(TASK))
        calls = client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]
        assert journal.fill(TASK, [*answer.items, *said], A)
        assert client.info("commandstats")["cmdstat_evalsha"]["calls"] - calls == 7
        assert [entry.index for entry in journal.read(TASK) if isinstance(entry, Token)] == list(range(11))

    def test_ended(self, journal: Journal, client: Redis) -> None:
        """A journal that is written again with its end takes nothing more, and lives as long as one that ended."""
        items, stream = written(journal, client, 2)
        items.append(Append.of(TASK, 4, end(2), items[-1].nonce))
        roll_back(client, stream, 3)
        assert journal.fill(TASK, items, A)
        assert put(journal, token(2), n=5) == ["fenced"]
        assert journal.claim(TASK, B).kind == "ended"
        assert client.pttl(keys.stream(TASK)) <= 60_000

    def test_earlier_attempts(self, journal: Journal, client: Redis) -> None:
        """A second attempt writes what is missing of the first one, its own claim, and what it said."""
        first, _ = written(journal, client, 3)
        assert journal.release(TASK, 1, 5, crashed=False, nonce=first[-1].nonce) == "ok"
        answer = journal.claim(TASK, B)
        item = Append.of(TASK, 1, start(2), answer.nonce)
        assert journal.append([item]) == ["ok"]
        stream = entries(client)
        for left in (0, 3, 6, 7):
            roll_back(client, stream, left)
            assert journal.append([Append.of(TASK, 2, token(3, attempt=2), answer.nonce)]) == [
                "behind" if left else "gone"
            ]
            assert journal.fill(TASK, [*answer.items, item], B)
            assert said(entries(client)) == said(stream)

    @pytest.mark.parametrize("left", [0, 3])
    def test_another_was_first(self, journal: Journal, client: Redis, left: int) -> None:
        """Whoever claims after the rollback, before the old owner has filled it, has the request: the old one is fenced."""
        items, stream = written(journal, client, 5)
        roll_back(client, stream, left)
        die(client, A)
        answer = journal.claim(TASK, B)
        assert answer.kind == "claimed"
        assert [entry.index for entry in answer.entries if isinstance(entry, Token)] == list(range(max(0, left - 2)))
        assert not journal.fill(TASK, items, A)
        assert journal.append([Append.of(TASK, 7, token(5), items[-1].nonce)]) == ["fenced"]
        assert journal.append([Append.of(TASK, 1, start(answer.attempt), answer.nonce)]) == ["ok"]

    def test_the_message_is_held_again(self, journal: Journal, client: Redis) -> None:
        """With the journal the owner's hold of its message comes back, so that its claim counts; the ledger's entry goes."""
        client.hset(keys.unacked(A), "tag", "message")
        answer = journal.claim(TASK, A, delivery="tag")
        client.delete(keys.stream(TASK), keys.unacked(A))
        client.hset(keys.LEDGER, TASK, "{}")
        assert journal.fill(TASK, answer.items, A, lambda: Held("tag", "message"))
        assert client.hgetall(keys.unacked(A)) == {b"tag": b"message"}
        assert client.zrange(keys.unacked_index(A), 0, -1) == [b"tag"]
        assert not client.hlen(keys.LEDGER)
        assert journal.claim(TASK, B).kind == "busy"

    def test_last_ids(self, journal: Journal, client: Redis) -> None:
        """Where journals end can be asked for many at once."""
        items, _ = written(journal, client, 2)
        assert journal.last_ids([TASK, "none"]) == [items[-1].entry_id, ""]
        assert journal.last_ids([]) == []

    def test_collected(self, journal: Journal, client: Redis) -> None:
        """What was deleted on purpose can be asked for many at once."""
        client.set(keys.collected(TASK), "")
        assert journal.collected([TASK, "none"]) == {TASK}
        assert journal.collected([]) == set()


class TestEndUnclaimed:
    def test_never_claimed(self, journal: Journal, client: Redis) -> None:
        """A request that was revoked while queued gets a journal with its end alone, and leaves the ledger."""
        client.hset(keys.LEDGER, TASK, "{}")
        assert journal.end_unclaimed(TASK, end(reason="cancelled", attempt=0)) == "ended"
        (only,) = journal.read(TASK)
        assert isinstance(only, End)
        assert (only.attempt, only.index, only.finish_reason) == (1, 0, "cancelled")
        assert client.hlen(keys.LEDGER) == 0
        assert journal.claim(TASK, A).kind == "ended"
        assert 0 < client.pttl(keys.stream(TASK)) <= 60_000

    def test_after_tokens(self, journal: Journal, client: Redis) -> None:
        """The end after a dead attempt counts the tokens that were emitted, and fences the dead."""
        journal.claim(TASK, A)
        put(journal, start(), token(0), token(1))
        die(client, A)
        bare = End(attempt=0, index=0, finish_reason="cancelled", usage={})
        assert journal.end_unclaimed(TASK, bare) == "ended"
        last = journal.read(TASK)[-1]
        assert isinstance(last, End)
        assert (last.attempt, last.index, last.usage["prompt_tokens"], last.usage["completion_tokens"]) == (2, 2, 7, 2)
        assert put(journal, token(2), n=4) == ["fenced"]

    def test_busy_and_already(self, journal: Journal) -> None:
        """A living owner ends its request itself; an ended one is not ended twice; a released one can be."""
        error = Error(attempt=0, code="expired", message="late")
        journal.claim(TASK, A)
        assert journal.end_unclaimed(TASK, error) == "busy"
        journal.release(TASK, 1, 1, crashed=False)
        assert journal.end_unclaimed(TASK, error) == "ended"
        assert journal.end_unclaimed(TASK, error) == "already"
        assert journal.read(TASK)[-1] == Error(attempt=2, code="expired", message="late")

    def test_owner_without_the_message(self, journal: Journal, client: Redis) -> None:
        """An owner that lives and does not hold the message will not end the request: it is ended from outside."""
        client.hset(keys.unacked(A), "tag", "message")
        journal.claim(TASK, A, delivery="tag")
        assert journal.end_unclaimed(TASK, end(reason="cancelled", attempt=0)) == "busy"
        client.delete(keys.unacked(A))
        assert journal.end_unclaimed(TASK, end(reason="cancelled", attempt=0)) == "ended"

    def test_moved(self, journal: Journal, client: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
        """An end is worked out again when something was appended since the journal was read, and not for ever."""
        read = journal._stored
        writes = iter(range(1_000))

        def read_and_write(task_id: str) -> list[tuple[str, bytes]]:
            stored = read(task_id)
            for n in itertools.islice(writes, 1):
                client.xadd(keys.stream(TASK), {"d": encode(token(n))}, id=f"1-{n}")
            return stored

        monkeypatch.setattr(journal, "_stored", read_and_write)
        assert journal.end_unclaimed(TASK, end(reason="cancelled")) == "busy"
        writes = iter([20])
        assert journal.end_unclaimed(TASK, end(reason="cancelled")) == "ended"
        last = journal.read(TASK)[-1]
        assert isinstance(last, End)
        assert last.index == 21


class TestServer:
    def test_unreachable(self) -> None:
        """A server that is not there is one clear error that names what was tried."""
        with (
            closing(connect("redis://127.0.0.1:1/0")) as client,
            pytest.raises(BrokerUnavailable, match=f"claim of {TASK}"),
        ):
            Journal(client).claim(TASK, A)

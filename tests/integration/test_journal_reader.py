"""Readers on a real server: before, in the middle and after; many at once; through every kind of loss."""

from __future__ import annotations

import asyncio
import multiprocessing
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tasks.client.reader.chunks import Chunk
from tasks.client.reader.journal_watch import Event, JournalWatch
from tasks.client.reader.reading import Stored
from tasks.client.reader.stream import afollow, follow
from tasks.errors import AnswerChanged, BrokerUnavailable, EngineFailed, JournalFailed, StreamTimeout
from tasks.journal.items import Append
from tasks.journal.writer import Journal
from tasks.messages.journal import End, Entry, Error, Release, Start, Token, encode
from tasks.server import keys
from tasks.server.connection import connect, endpoint
from tasks.server.patience import Patience
from tasks.server.subscription import Subscription
from tasks.server.subscriptions import SUBSCRIPTIONS, Subscriptions
from tests.line import Line
from tests.support import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from redis import Redis

    from tasks.demo.embedded import EmbeddedServer
    from tasks.server.connection import Endpoint

A = "a@here#1"
TASK = "task-1"
START = Start(attempt=1, model="m", revision="r", prompt_tokens=9, cached_tokens=0, prompt_hash="h")


def nothing_stored() -> Stored:
    return Stored(state="PENDING")


def with_patience(url: str, **waits: float) -> Endpoint:
    """A server that is waited for in its own way."""
    return replace(endpoint(url), patience=Patience(**waits))


class Writer:
    """Writes one request's journal, entry by entry, as its worker does."""

    def __init__(self, journal: Journal, task_id: str = TASK) -> None:
        self.journal, self.task_id = journal, task_id
        self.index = self.n = 0
        self.claim = journal.claim(task_id, A)
        self.items = list(self.claim.items)

    def put(self, *entries: Entry) -> None:
        batch = [Append.of(self.task_id, self.n + i, entry, self.claim.nonce) for i, entry in enumerate(entries, 1)]
        self.n += len(batch)
        self.items += batch
        assert set(self.journal.append(batch)) <= {"ok", "heard"}

    def say(self, *texts: str, kind: str = "content") -> None:
        tokens = [
            Token(attempt=self.claim.attempt, index=self.index + i, ids=[self.index + i], text=text, kind=kind)
            for i, text in enumerate(texts)
        ]
        self.index += len(tokens)
        self.put(*tokens)

    def end(self, reason: str = "stop") -> None:
        usage = {"completion_tokens": self.index}
        self.put(
            End(
                attempt=self.claim.attempt,
                index=self.index,
                finish_reason=reason,
                usage=usage,
                timing={"total_ms": 1.0},
            )
        )


@pytest.fixture
def client(redis_url: str) -> Iterator[Redis]:
    """A worker's client, on a server where A is alive."""
    with closing(connect(redis_url)) as client:
        client.set(keys.alive(A), 1)
        yield client


@pytest.fixture
def journal(client: Redis) -> Journal:
    """Writes to that server."""
    return Journal(client)


@pytest.fixture
def where(redis_url: str) -> Endpoint:
    """Where readers find it."""
    return endpoint(redis_url)


class Reader:
    """Follows one request on a thread of its own."""

    def __init__(
        self,
        where: Endpoint,
        stored: Callable[[], Stored] = nothing_stored,
        subscriptions: Subscriptions = SUBSCRIPTIONS,
    ) -> None:
        self.chunks: list[Chunk] = []
        self._where, self._stored, self._subscriptions = where, stored, subscriptions
        self._pool = ThreadPoolExecutor(1)
        self._done = self._pool.submit(self._read)

    def _read(self) -> None:
        for chunk in follow(self._where, TASK, self._stored, timeout=60, subscriptions=self._subscriptions):
            self.chunks.append(chunk)

    @property
    def text(self) -> str:
        return "".join(chunk.text for chunk in self.chunks)

    def wait_for(self, text: str) -> None:
        wait_until(lambda: self.text == text, about=f"the text {text!r}")

    def finish(self) -> list[Chunk]:
        self._done.result(60)
        self._pool.shutdown()
        ids = [id_ for chunk in self.chunks for id_ in chunk.ids]
        assert ids == list(range(len(ids)))
        assert self.chunks[-1].finish_reason is not None
        return self.chunks


def wait_until_subscribed(client: Redis, task_id: str = TASK) -> None:
    wait_until(lambda: dict(client.pubsub_numsub(keys.stream(task_id)))[keys.stream(task_id).encode()] > 0)


def timed_out(where: Endpoint, **limits: Any) -> str:
    """What a reader whose patience is over says; a busy machine may have told it less by then than another time."""
    with pytest.raises(StreamTimeout) as caught:
        list(follow(where, TASK, nothing_stored, **limits))
    return str(caught.value)


def connections_received(client: Redis) -> int:
    stats: dict[str, int] = client.info("stats")
    return stats["total_connections_received"]


class TestStream:
    def test_before_middle_after(self, journal: Journal, where: Endpoint) -> None:
        """Readers that begin before the request, in its middle (three of them) and after its end get the same."""
        early = Reader(where)
        writer = Writer(journal)
        writer.put(START)
        writer.say("Why ", "is ")
        middle = [Reader(where) for _ in range(3)]
        for reader in middle:
            reader.wait_for("Why is ")
        writer.say("the ", "sky ", "blue?")
        writer.end()
        late = Reader(where)
        expected = early.finish()
        assert [chunk.text for chunk in expected] == ["Why ", "is ", "the ", "sky ", "blue?", ""]
        assert expected[-1] == Chunk(
            text="", index=5, finish_reason="stop", usage={"completion_tokens": 5}, timing={"total_ms": 1.0}
        )
        for reader in [*middle, late]:
            assert reader.finish() == expected

    def test_thousand_instant_streams(self, journal: Journal, client: Redis, where: Endpoint) -> None:
        """A thousand requests that are answered while their readers subscribe lose no first chunk, on one connection."""
        names = [f"instant-{i}" for i in range(1_000)]

        def answer() -> None:
            for name in names:
                writer = Writer(journal, name)
                writer.say("first", " last")
                writer.end()

        def read(name: str) -> str:
            return "".join(chunk.text for chunk in follow(where, name, nothing_stored, timeout=60))

        with ThreadPoolExecutor(17) as pool:
            answered = pool.submit(answer)
            texts = list(pool.map(read, names))
            answered.result()
        assert texts == ["first last"] * 1_000
        assert len(client.client_list("pubsub")) <= 1

    def test_more_than_a_page(self, journal: Journal, where: Endpoint) -> None:
        """A journal longer than one read is read page by page."""
        writer = Writer(journal)
        writer.say(*(f"{i} " for i in range(100)))
        writer.end()
        events: list[Event] = []
        place = JournalWatch(TASK, events.extend, page=7)
        SUBSCRIPTIONS.open(where, place)
        wait_until(lambda: events and isinstance(events[-1], Chunk) and events[-1].finish_reason)
        place.close()
        chunks = [event for event in events if isinstance(event, Chunk)]
        assert "".join(chunk.text for chunk in chunks) == "".join(f"{i} " for i in range(100))
        assert place.reads >= 100 // 7

    def test_next_attempt(self, journal: Journal, client: Redis, where: Endpoint) -> None:
        """A request that another attempt carries on reads as one text."""
        reader = Reader(where)
        first = Writer(journal)
        first.say("a", "b")
        first.put(Release(attempt=1, crashed=True))
        second = Writer(journal)
        second.index = first.index
        second.say("c")
        second.end()
        assert [chunk.text for chunk in reader.finish()] == ["a", "b", "c", ""]

    def test_error(self, journal: Journal, where: Endpoint) -> None:
        """An error entry raises its class, after all the text that came before it."""
        writer = Writer(journal)
        writer.say("a")
        writer.put(Error(attempt=1, code="engine_failed", message="three times", retryable=True))
        chunks = follow(where, TASK, nothing_stored, timeout=30)
        assert next(chunks).text == "a"
        with pytest.raises(EngineFailed, match="three times"):
            next(chunks)

    def test_cancelled(self, journal: Journal, where: Endpoint) -> None:
        """A cancelled request ends in the ordinary way, whether an end or an error says so."""
        journal.end_unclaimed("one", End(attempt=0, index=0, finish_reason="cancelled", usage={}))
        journal.end_unclaimed("two", Error(attempt=0, code="cancelled", message="revoked"))
        for task_id in ("one", "two"):
            (only,) = follow(where, task_id, nothing_stored, timeout=30)
            assert (only.text, only.finish_reason) == ("", "cancelled")


class TestLoss:
    def test_unpublished_entries(self, journal: Journal, client: Redis, where: Endpoint) -> None:
        """Entries whose messages were dropped are read from the stream: at a gap at once, at the end after a silence."""
        reader = Reader(where)
        writer = Writer(journal)
        writer.say("a")
        reader.wait_for("a")
        for n, text in ((2, "b"), (3, "c")):
            token = Append.of(TASK, n, Token(attempt=1, index=n - 1, ids=[n - 1], text=text))
            client.xadd(keys.stream(TASK), {"d": token.payload}, id=f"1-{n}")
        writer.n = writer.index = 3
        writer.say("d")
        reader.wait_for("abcd")
        end = Append.of(TASK, 5, End(attempt=1, index=4, finish_reason="stop", usage={}))
        client.xadd(keys.stream(TASK), {"d": end.payload}, id="1-5")
        assert len(reader.finish()) == 5

    def test_connection_killed(self, journal: Journal, client: Redis, where: Endpoint) -> None:
        """A subscription whose connection is cut again and again in mid-stream loses and repeats nothing."""
        reader = Reader(where)
        wait_until_subscribed(client)
        writer = Writer(journal)
        for round_ in range(10):
            writer.say(f"{round_} ")
            client.client_kill_filter(_type="pubsub")
            writer.say(f"{round_}! ")
        writer.end()
        reader.finish()
        assert reader.text == "".join(f"{i} {i}! " for i in range(10))

    def test_server_restarted(
        self, redis_server: EmbeddedServer, journal: Journal, client: Redis, where: Endpoint
    ) -> None:
        """A reader whose server restarts empty goes on once the owner has written the journal again."""
        reader = Reader(where)
        writer = Writer(journal)
        writer.say("a", "b")
        reader.wait_for("ab")
        redis_server.restart()
        assert journal.fill(TASK, writer.items)
        writer.say("c")
        writer.end()
        assert [chunk.text for chunk in reader.finish()] == ["a", "b", "c", ""]

    def test_run_anew(self, journal: Journal, client: Redis, where: Endpoint) -> None:
        """A lost request that is run again from its start, in other chunks, repeats nothing to its reader."""
        reader = Reader(where)
        writer = Writer(journal)
        writer.say("a", "b", "c")
        reader.wait_for("abc")
        client.delete(keys.stream(TASK))
        again = Writer(journal)
        again.put(Token(attempt=1, index=0, ids=[0, 1], text="ab"), Token(attempt=1, index=2, ids=[2, 3], text="cd"))
        again.index = 4
        again.end()
        reader.finish()
        assert reader.text == "abcd"

    @pytest.mark.parametrize("restarted", [False, True])
    def test_run_again_otherwise(
        self, redis_server: EmbeddedServer, journal: Journal, client: Redis, where: Endpoint, restarted: bool
    ) -> None:
        """A lost request that is computed again with another text is one error for who had read the first, and no mixture."""
        writer = Writer(journal)
        writer.say("a", "b", "c")
        chunks = follow(where, TASK, nothing_stored, timeout=30)
        assert [next(chunks).text for _ in range(3)] == ["a", "b", "c"]
        if restarted:
            redis_server.restart()
        client.delete(keys.stream(TASK))
        again = Writer(journal)
        tokens = [Token(attempt=1, index=index, ids=[index + 7], text="z") for index in range(5)]
        again.put(*tokens)
        with pytest.raises(AnswerChanged, match="computed again with another text from token 0 on"):
            next(chunks)
        fresh = follow(where, TASK, nothing_stored, timeout=30)
        assert next(fresh).text == "z"
        fresh.close()

    def test_run_anew_unheard(self, journal: Journal, client: Redis, where: Endpoint) -> None:
        """The same, where nothing of the new run was heard: the stream that holds it is another, and read from its start."""
        reader = Reader(where)
        writer = Writer(journal)
        writer.say("a", "b", "c")
        reader.wait_for("abc")
        pipeline = client.pipeline()
        pipeline.delete(keys.stream(TASK))
        token = Token(attempt=1, index=0, ids=[0, 1, 2, 3], text="abcd")
        end = End(attempt=1, index=4, finish_reason="stop", usage={})
        for n, payload in enumerate([encode(token), encode(end)]):
            pipeline.xadd(keys.stream(TASK), {"d": payload}, id=f"1-{n}")
        pipeline.execute()
        reader.finish()
        assert reader.text == "abcd"

    def test_dead_line(self, journal: Journal, redis_url: str) -> None:
        """A connection behind which nobody is any more, which no error shows, is given up for another."""
        writer = Writer(journal)
        with Line(redis_url) as line:
            reader = Reader(
                with_patience(line.url, ping_after_s=0.1, answer_within_s=0.5), subscriptions=Subscriptions()
            )
            writer.say("a")
            reader.wait_for("a")
            line.forget()
            writer.say("b")
            writer.end()
            assert [chunk.text for chunk in reader.finish()] == ["a", "b", ""]
            assert line.calls > 2


class TestStored:
    def test_expired_journal(self, where: Endpoint) -> None:
        """Where the journal has expired the stored result comes as one chunk."""
        usage = {"completion_tokens": 2}
        stored = Stored(state="SUCCESS", final=True, text="whole text", finish_reason="length", usage=usage)
        (only,) = follow(where, TASK, lambda: stored, timeout=30)
        assert only == Chunk(text="whole text", index=0, finish_reason="length", usage=usage)

    def test_reasoning_of_an_expired_journal(self, where: Endpoint) -> None:
        """The stored reasoning comes as a chunk of its own kind before the text, less what was read of it already."""
        stored = Stored(state="SUCCESS", final=True, text="YES", reasoning="hm so")
        chunks = list(follow(where, TASK, lambda: stored, timeout=30))
        assert [(chunk.kind, chunk.text) for chunk in chunks] == [("reasoning", "hm so"), ("content", "YES")]
        assert [chunk.finish_reason for chunk in chunks] == [None, "stop"]

    def test_lost_in_the_middle_of_a_thought(self, journal: Journal, client: Redis, where: Endpoint) -> None:
        """Of each kind the stored result gives what had not come yet."""
        state = [Stored(state="STARTED")]
        reader = Reader(where, lambda: state[0])
        Writer(journal).say("hm ", kind="reasoning")
        reader.wait_for("hm ")
        client.delete(keys.stream(TASK))
        state[0] = Stored(state="SUCCESS", final=True, text="YES", reasoning="hm so")
        chunks = [(chunk.kind, chunk.text) for chunk in reader.finish()]
        assert chunks == [("reasoning", "hm "), ("reasoning", "so"), ("content", "YES")]

    def test_another_answer(self, journal: Journal, client: Redis, where: Endpoint) -> None:
        """A stored result that does not go on from what was read is no end of it, but an error."""
        writer = Writer(journal)
        writer.say("a")
        stored = Stored(state="SUCCESS", final=True, text="other")
        chunks = follow(where, TASK, lambda: stored, timeout=30)
        assert next(chunks).text == "a"
        client.delete(keys.stream(TASK))
        with pytest.raises(AnswerChanged, match="computed again with another text than is stored"):
            next(chunks)

    def test_lost_in_the_middle(self, journal: Journal, client: Redis, where: Endpoint) -> None:
        """Where the journal is lost in mid-stream the stored result gives what had not come yet."""
        state = [Stored(state="STARTED")]
        reader = Reader(where, lambda: state[0])
        Writer(journal).say("Hello")
        reader.wait_for("Hello")
        client.delete(keys.stream(TASK))
        state[0] = Stored(state="SUCCESS", final=True, text="Hello world")
        assert [chunk.text for chunk in reader.finish()] == ["Hello", " world"]

    def test_error(self, where: Endpoint) -> None:
        """A stored error is raised as it was stored."""
        with pytest.raises(ZeroDivisionError):
            list(
                follow(where, TASK, lambda: Stored(state="FAILURE", final=True, error=ZeroDivisionError()), timeout=30)
            )

    def test_journal_wins(self, journal: Journal, where: Endpoint) -> None:
        """A result that is final does not cut off a journal whose end comes at the same time."""

        def stored() -> Stored:
            # Celery's answer is final from the first question on; the journal was complete before it was asked.
            if not writer.items[-1].closes:
                writer.say("b")
                writer.end()
            return Stored(state="REVOKED", final=True, finish_reason="cancelled")

        writer = Writer(journal)
        writer.say("a")
        reader = Reader(where, stored)
        assert [chunk.text for chunk in reader.finish()] == ["a", "b", ""]
        assert reader.chunks[-1].finish_reason == "stop"


class TestPatience:
    def test_unclaimed(self, where: Endpoint) -> None:
        """A request that nobody has claimed times out and says so; so does one that was never sent."""
        said = re.compile(r"timeout=0.3 s is over: no worker has claimed it in the \d+\.\d s .*PENDING")
        wait_until(lambda: said.search(timed_out(where, timeout=0.3)))

    @pytest.mark.parametrize(
        ("entry", "known"),
        [
            (None, "worker a@here#1 has claimed it (attempt 1), no token yet"),
            (START, "worker a@here#1 has claimed it (attempt 1, prompt of 9 tokens), no token yet"),
            (Token(attempt=1, index=0, ids=[7, 8], text="x"), "worker a@here#1 has sent 2 tokens, the last "),
            (
                Release(attempt=1, crashed=False),
                "its worker gave it back after attempt 1, and no other has claimed it yet",
            ),
        ],
    )
    def test_what_is_known(self, journal: Journal, where: Endpoint, entry: Entry | None, known: str) -> None:
        """A reader that waited too long for a chunk is told how far its request has come."""
        writer = Writer(journal)
        if entry is not None:
            writer.put(entry)
        wait_until(lambda: known in timed_out(where, idle_timeout=0.3))
        assert "idle_timeout=0.3" in timed_out(where, idle_timeout=0.3)

    def test_slow_caller(self, journal: Journal, where: Endpoint) -> None:
        """The time that the caller spends on a chunk is not the request's idleness."""
        writer = Writer(journal)
        writer.say("a", "b")
        chunks = follow(where, TASK, nothing_stored, idle_timeout=4.0)
        assert next(chunks).text == "a"
        time.sleep(4.1)
        assert next(chunks).text == "b"
        writer.end()
        time.sleep(4.1)
        assert next(chunks).finish_reason == "stop"

    def test_leaving(self, journal: Journal, where: Endpoint) -> None:
        """Whoever leaves before the end, by closing or by timeout, is noticed; whoever read to the end is not."""
        left: list[str] = []
        writer = Writer(journal)
        writer.say("a")
        chunks = follow(where, TASK, nothing_stored, lambda: left.append("closed"), timeout=30)
        next(chunks)
        chunks.close()
        with pytest.raises(StreamTimeout):
            list(follow(where, TASK, nothing_stored, lambda: left.append("timed out"), idle_timeout=0.2))
        writer.end()
        list(follow(where, TASK, nothing_stored, lambda: left.append("read"), timeout=30))
        assert left == ["closed", "timed out"]


class TestServer:
    def test_never_reached(self) -> None:
        """A server that never answers is an error after a while, and the reason of a timeout before."""
        nowhere = endpoint("redis://:secret@127.0.0.1:1/0")
        wait_until(lambda: "Redis cannot be reached (redis://:***@127.0.0.1:1/0: " in timed_out(nowhere, timeout=0.5))
        impatient = replace(nowhere, patience=Patience(first_contact_s=0.2))
        with pytest.raises(BrokerUnavailable, match=f"request {TASK}: Redis cannot be reached"):
            list(follow(impatient, TASK, nothing_stored, timeout=30, subscriptions=Subscriptions()))

    def test_one_that_was_reached_before(self, client: Redis, journal: Journal, redis_url: str) -> None:
        """A reader that begins while a server is away that this process has reached waits for it: it is no wrong address."""
        writer = Writer(journal)
        writer.say("a")
        writer.end()
        with Line(redis_url) as line:
            line.refuse()
            subscriptions, reached = Subscriptions(), with_patience(line.url, first_contact_s=0.1)
            subscriptions.note_contact(reached)
            reader = Reader(reached, subscriptions=subscriptions)
            began = time.monotonic()
            wait_until(lambda: line.refused > 3 and time.monotonic() - began > 0.2)
            line.heal()
            assert "".join(chunk.text for chunk in reader.finish()) == "a"

    def test_away_for_too_long(self, journal: Journal, redis_url: str) -> None:
        """A reader in mid-stream waits for a server that is away, and not for ever."""
        Writer(journal).say("a")
        with Line(redis_url) as line:
            where = with_patience(line.url, away_s=0.3)
            chunks = follow(where, TASK, nothing_stored, subscriptions=Subscriptions())
            assert next(chunks).text == "a"
            line.refuse()
            with pytest.raises(BrokerUnavailable, match=f"request {TASK}: Redis cannot be reached"):
                next(chunks)

    def test_refused_once(self, client: Redis, redis_server: EmbeddedServer) -> None:
        """Whom the server refuses does not ask it again and again: one connection, until somebody wants to read again."""
        address = redis_server.url.rpartition("@")[2]
        refused = with_patience(f"redis://:wrong@{address}", idle_s=0.5)
        before, others = connections_received(client), set(threading.enumerate())
        with pytest.raises(BrokerUnavailable, match="refuses"):
            list(follow(refused, TASK, nothing_stored, subscriptions=Subscriptions()))
        wait_until(lambda: set(threading.enumerate()) <= others, about="the end of the subscription's thread")
        assert connections_received(client) - before == 1

    def test_refused(self, client: Redis, redis_server: EmbeddedServer) -> None:
        """A client without the right to read, or to listen, is told so at once."""
        address = redis_server.url.rpartition("@")[2]
        client.acl_setuser("deaf", enabled=True, passwords=["+x"], keys=["*"], categories=["+@all"], channels=["other"])
        client.acl_setuser(
            "blind", enabled=True, passwords=["+x"], keys=["other"], categories=["+@all"], channels=["*"]
        )
        for user in ("deaf", "blind"):
            with pytest.raises(BrokerUnavailable, match="refuses"):
                list(follow(endpoint(f"redis://{user}:x@{address}"), TASK, nothing_stored, timeout=30))

    def test_not_a_stream(self, client: Redis, where: Endpoint) -> None:
        """A key of another type is an error of its own reader."""
        client.set(keys.stream(TASK), "x")
        with pytest.raises(JournalFailed, match="WRONGTYPE"):
            list(follow(where, TASK, nothing_stored, timeout=30))


class TestAsync:
    def test_many_at_once(self, journal: Journal, where: Endpoint) -> None:
        """A hundred readers on one event loop, and the loop goes on turning."""
        names = [f"async-{i}" for i in range(100)]
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0.001)
                turns += 1

        async def read(name: str) -> str:
            return "".join([chunk.text async for chunk in afollow(where, name, nothing_stored, timeout=60)])

        async def main() -> list[str]:
            turning = asyncio.create_task(turn())
            answering = asyncio.get_running_loop().run_in_executor(None, answer)
            texts = await asyncio.gather(*map(read, names))
            await answering
            turning.cancel()
            return texts

        def answer() -> None:
            for name in names:
                writer = Writer(journal, name)
                writer.say("a", "b")
                writer.end()

        assert asyncio.run(main()) == ["ab"] * 100
        assert turns > 10

    def test_stored_and_timeout(self, where: Endpoint) -> None:
        """The stored result and the timeouts work as for threads."""

        async def read(stored: Stored, idle_timeout: float | None = None) -> list[Chunk]:
            return [chunk async for chunk in afollow(where, TASK, lambda: stored, idle_timeout=idle_timeout)]

        assert asyncio.run(read(Stored(state="SUCCESS", final=True, text="x")))[0].text == "x"
        with pytest.raises(StreamTimeout, match="idle_timeout"):
            asyncio.run(read(Stored(state="PENDING"), idle_timeout=0.2))

    def test_leaving(self, journal: Journal, where: Endpoint) -> None:
        """A task that is cancelled in mid-stream leaves, and the request hears of it."""
        left = threading.Event()
        Writer(journal).say("a")
        begun = asyncio.Event()

        async def read() -> None:
            async for _ in afollow(where, TASK, nothing_stored, left.set):
                begun.set()

        async def main() -> None:
            task = asyncio.create_task(read())
            await asyncio.wait_for(begun.wait(), 30)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(main())
        assert left.wait(60)


class TestProcess:
    def test_fork(self, journal: Journal, where: Endpoint) -> None:
        """A child that was forked while its parent reads has a subscription of its own; both read the whole."""
        writer = Writer(journal)
        writer.say("a")
        reader = Reader(where)
        reader.wait_for("a")
        context = multiprocessing.get_context("fork")
        answers: multiprocessing.SimpleQueue[str] = context.SimpleQueue()

        def read() -> None:
            answers.put("".join(chunk.text for chunk in follow(where, TASK, nothing_stored, timeout=30)))

        child = context.Process(target=read)
        child.start()
        writer.say("b")
        writer.end()
        child.join(60)
        assert child.exitcode == 0
        assert answers.get() == "ab"
        assert reader.finish()[-1].finish_reason == "stop"

    def test_idle(self, journal: Journal, client: Redis, where: Endpoint) -> None:
        """With nobody listening the thread ends and its connections close; the next reader starts another."""
        impatient, subscriptions = replace(where, patience=Patience(idle_s=0.1)), Subscriptions()
        for task_id in ("one", "two"):
            Writer(journal, task_id).end()
            list(follow(impatient, task_id, nothing_stored, timeout=30, subscriptions=subscriptions))
            wait_until(lambda: not client.client_list("pubsub"), about="the end of the subscription")

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
    def test_thread_dies(self, journal: Journal, where: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
        """Readers do not wait for a thread that a defect ended, and the next reader has another."""
        threads: list[threading.Thread] = []

        def defect(*_: object) -> None:
            threads.append(threading.current_thread())
            raise ZeroDivisionError

        with monkeypatch.context() as patch:
            patch.setattr(Subscription, "_hear", defect)
            with pytest.raises(BrokerUnavailable, match="read again"):
                list(follow(where, "elsewhere", nothing_stored, timeout=30))
        threads[0].join(30)  # pytest blames the test that runs when a thread has ended
        Writer(journal).end()
        assert len(list(follow(where, TASK, nothing_stored, timeout=30))) == 1

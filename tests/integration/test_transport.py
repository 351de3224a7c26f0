"""The transport on a real server: what is asked for and when, what is noted, and what a lost connection leaves alone."""

from __future__ import annotations

import json
import time
from contextlib import closing
from queue import Empty
from typing import TYPE_CHECKING, Any

import pytest
from kombu import Queue
from kombu.utils.json import loads

from tasks.broker.channel.channel import FAIRNESS_PERIOD
from tasks.broker.channel.holding import OPTION, Holding
from tasks.broker.queues.references import reference
from tasks.broker.transport import Transport
from tasks.journal.writer import Journal
from tasks.messages.journal import End
from tasks.server import keys
from tasks.server.connection import connect
from tasks.server.pipeline import AutoPipeline
from tasks.server.resp import Replies
from tests.fleet import id_of
from tests.support import wait_until
from worker_config.celeryconfig import PRIORITY_STEPS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import redis
    from celery import Celery

SMALL, LARGE = "tier-under-3B", "tier-3-7B"
SEPARATOR = "\x06\x16"


class Room:
    """Has room for the queues that it is told."""

    def __init__(self, *queues: str) -> None:
        self.queues = set(queues)

    def has_room(self, queue: str, *, urgent: bool = False) -> bool:
        return queue in self.queues

    def free(self, queue: str) -> int:
        return 4 if queue in self.queues else 0

    @staticmethod
    def in_use() -> int:
        return 2

    @staticmethod
    def aside_lists(_queue: str) -> tuple[Sequence[str], Sequence[str]]:
        return (), ()


@pytest.fixture
def holding() -> Holding:
    """The worker's side."""
    return Holding("mac@lab#b1")


@pytest.fixture
def room(holding: Holding) -> Room:
    """The worker's room; none at first."""
    holding.room = room = Room()
    return room


class Fetcher:
    """A channel that consumes both queues, what it sent to fetch, and what it was given."""

    def __init__(self, channel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.channel = channel
        self.messages: list[Any] = []
        self.asked: list[list[str]] = []
        for name in (SMALL, LARGE):
            Queue(name, channel=channel).declare()
            channel.basic_consume(name, no_ack=False, callback=self.messages.append, consumer_tag=name)
        # As kombu's poller does it.
        connection = channel.client.connection = channel.client.connection_pool.get_connection()
        send = connection.send_packed_command

        def note(packed: Any, **options: Any) -> Any:
            (command,) = Replies(ValueError).feed(b"".join(packed))
            if command[0] == b"BRPOP":
                self.asked.append([name.decode() for name in command[1:-1]])
            return send(packed, **options)

        monkeypatch.setattr(connection, "send_packed_command", note)

    def fetch(self, timeout_s: float = 5.0) -> Any:
        """The next message."""
        self.channel._brpop_start(timeout_s)
        self.channel._brpop_read()
        return self.messages[-1]

    def fetch_nothing(self) -> None:
        """A fetch that ends by its time."""
        self.channel._brpop_start(0.01)
        with pytest.raises(Empty):
            self.channel._brpop_read()


@pytest.fixture
def fetcher(producer_app: Celery, holding: Holding, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fetcher]:
    """A worker's channel, without the worker."""
    options = {"unacked_key": "held", "unacked_index_key": "held-index", OPTION: holding}
    with producer_app.connection_for_read(transport_options=options) as connection:
        assert isinstance(connection.transport, Transport)
        yield Fetcher(connection.channel(), monkeypatch)


def send(app: Celery, task_id: str, queue: str = SMALL, task: str = "tasks.generate", **options: Any) -> None:
    app.send_task(
        task, kwargs={"prompt": "a", "model": "fake:1"}, task_id=task_id, queue=queue, ignore_result=True, **options
    )


def queued(client: redis.Redis, name: str) -> list[str]:
    """The ids in a list, the next to be taken first."""
    messages: Any = client.lrange(name, 0, -1)
    return [id_of(item) for item in reversed(messages)]


class TestAsking:
    def test_only_where_there_is_room(self, fetcher: Fetcher, room: Room) -> None:
        """A queue without room is not named; where there is no room at all nothing is asked."""
        fetcher.channel._brpop_start(0.01)
        assert not fetcher.channel.fetching
        assert fetcher.asked == []
        room.queues = {LARGE}
        fetcher.fetch_nothing()
        assert {name.partition(SEPARATOR)[0] for name in fetcher.asked[-1]} == {LARGE}
        room.queues = {SMALL, LARGE}
        fetcher.fetch_nothing()
        assert {name.partition(SEPARATOR)[0] for name in fetcher.asked[-1]} == {SMALL, LARGE}

    @pytest.mark.usefixtures("redis_client")
    def test_everything_without_a_room(self, fetcher: Fetcher) -> None:
        """A worker of another pool asks for all of its queues."""
        fetcher.fetch_nothing()
        assert len(fetcher.asked[-1]) == 2 * len(PRIORITY_STEPS)

    def test_by_priority(self, fetcher: Fetcher, room: Room) -> None:
        """The most urgent list of each queue comes before the next of any; every so often it is the other way round."""
        room.queues = {SMALL, LARGE}
        for _ in range(FAIRNESS_PERIOD):
            fetcher.fetch_nothing()
        steps = [[int(name.partition(SEPARATOR)[2] or 0) for name in names] for names in fetcher.asked]
        in_order = sorted(2 * PRIORITY_STEPS)
        assert steps == [in_order] * (FAIRNESS_PERIOD - 1) + [in_order[::-1]]

    def test_queues_take_turns(self, fetcher: Fetcher, room: Room, producer_app: Celery) -> None:
        """Within a priority a queue from which something came stands behind the other, so that none starves."""
        room.queues = {SMALL, LARGE}
        for number in range(2):
            send(producer_app, f"small-{number}", SMALL)
            send(producer_app, f"large-{number}", LARGE)
        order = [fetcher.fetch().headers["id"].partition("-")[0] for _ in range(4)]
        assert order in (["small", "large"] * 2, ["large", "small"] * 2)

    def test_room_for_another_queue_is_noticed_at_once(
        self, fetcher: Fetcher, room: Room, producer_app: Celery
    ) -> None:
        """A fetch that is out returns when a queue that it does not ask for has room, and the next one asks for both."""
        room.queues = {SMALL}
        fetcher.channel._brpop_start(60)
        room.queues = {SMALL, LARGE}
        begun = time.monotonic()
        # The server may not have the fetch yet, on its other connection.
        wait_until(lambda: _is_blocked(fetcher))
        fetcher.channel.refetch()
        with pytest.raises(Empty):
            fetcher.channel._brpop_read()
        assert time.monotonic() - begun < 30
        send(producer_app, "t1", LARGE)
        assert fetcher.fetch().headers["id"] == "t1"

    def test_no_room_any_more_is_noticed_at_once(self, fetcher: Fetcher, room: Room) -> None:
        """A fetch that is out returns when its queue is full or the worker drains, so that it brings nothing more."""
        room.queues = {SMALL}
        fetcher.channel._brpop_start(60)
        wait_until(lambda: _is_blocked(fetcher))
        room.queues = set()
        fetcher.channel.refetch()
        with pytest.raises(Empty):
            fetcher.channel._brpop_read()
        fetcher.channel._brpop_start(60)
        assert not fetcher.channel.fetching

    def test_a_fetch_that_is_right_stays(self, fetcher: Fetcher, room: Room, producer_app: Celery) -> None:
        """A fetch that asks for what it should is left alone, and brings what comes."""
        room.queues = {SMALL}
        fetcher.channel.refetch()
        fetcher.channel._brpop_start(60)
        wait_until(lambda: _is_blocked(fetcher))
        fetcher.channel.refetch()
        assert _is_blocked(fetcher)
        send(producer_app, "t1")
        fetcher.channel._brpop_read()
        assert fetcher.messages[-1].headers["id"] == "t1"


def _is_blocked(fetcher: Fetcher) -> bool:
    """Whether the server has the fetch."""
    clients: Any = fetcher.channel._commands().client_list(client_id=[str(fetcher.channel._client_id)])
    return bool(clients) and "b" in clients[0]["flags"]


class TestHolding:
    def test_what_is_fetched_is_held(self, fetcher: Fetcher, producer_app: Celery, redis_client: redis.Redis) -> None:
        """A message is noted under the worker's own keys until it is acknowledged."""
        send(producer_app, "t1")
        message = fetcher.fetch()
        ((tag, held),) = redis_client.hgetall("held").items()
        assert tag == message.delivery_tag
        assert loads(held)[0]["headers"]["id"] == "t1"
        assert redis_client.zrange("held-index", 0, -1) == [tag]
        message.ack()
        assert not redis_client.exists("held", "held-index")
        assert queued(redis_client, SMALL) == []

    def test_what_is_handed_back_is_next(
        self, fetcher: Fetcher, producer_app: Celery, redis_client: redis.Redis
    ) -> None:
        """A message that is given back goes to the front of its queue, and says that it was delivered before."""
        for number in range(3):
            send(producer_app, f"t{number}")
        message = fetcher.fetch()
        message.reject(requeue=True)
        assert queued(redis_client, SMALL) == ["t0", "t1", "t2"]
        assert not redis_client.exists("held", "held-index")
        again = fetcher.fetch()
        assert again.headers["id"] == "t0"
        assert again.delivery_info["redelivered"]

    def test_a_priority_is_kept(self, fetcher: Fetcher, producer_app: Celery, redis_client: redis.Redis) -> None:
        """It goes back into the list of its own priority."""
        send(producer_app, "t0", priority=9)
        fetcher.fetch().reject(requeue=True)
        assert queued(redis_client, f"{SMALL}{SEPARATOR}9") == ["t0"]

    def test_what_is_rejected_is_gone(self, fetcher: Fetcher, producer_app: Celery, redis_client: redis.Redis) -> None:
        """Without requeue nothing is left of it."""
        send(producer_app, "t1")
        fetcher.fetch().reject()
        assert not redis_client.exists("held", "held-index", SMALL)

    def test_a_lost_connection_restores_nothing(
        self, fetcher: Fetcher, producer_app: Celery, redis_client: redis.Redis
    ) -> None:
        """While its task runs a message is in no queue whatever happens to its channel, and can be acknowledged."""
        send(producer_app, "t1")
        message = fetcher.fetch()
        fetcher.channel.qos.restore_visible()
        fetcher.channel.qos.restore_unacked_once()
        fetcher.channel.close()
        assert queued(redis_client, SMALL) == []
        assert redis_client.hkeys("held") == [message.delivery_tag]
        message.ack()
        assert not redis_client.exists("held", "held-index")

    def test_a_worker_that_ends_gives_back(
        self, fetcher: Fetcher, holding: Holding, producer_app: Celery, redis_client: redis.Redis
    ) -> None:
        """At the end of the worker, when nothing runs any more, kombu gives back what was never acknowledged."""
        holding.stopping = True
        send(producer_app, "t1")
        fetcher.fetch()
        fetcher.channel.qos.restore_unacked_once()
        assert queued(redis_client, SMALL) == ["t1"]


class TestAnotherPool:
    """A worker of an application that has a pool of Celery's: what a dead one held is nobody's but its time-out's."""

    @pytest.fixture
    def holding(self) -> Holding:
        return Holding()

    def test_its_messages_are_counted(self, fetcher: Fetcher, producer_app: Celery) -> None:
        """``worker_prefetch_multiplier`` holds: no more are asked for than Celery allows."""
        qos = fetcher.channel.qos
        qos.prefetch_count = 1
        assert qos.can_consume()
        send(producer_app, "t1", task="shop.word")
        message = fetcher.fetch()
        assert not qos.can_consume()
        message.ack()
        assert qos.can_consume()

    def test_they_return(self, fetcher: Fetcher, producer_app: Celery, redis_client: redis.Redis) -> None:
        """At its end, and once the visibility time-out of one that was killed is over."""
        send(producer_app, "t1", task="shop.word")
        fetcher.fetch()
        fetcher.channel.visibility_timeout = -1
        fetcher.channel.qos.restore_visible()
        assert queued(redis_client, SMALL) == ["t1"]
        fetcher.fetch()
        fetcher.channel.qos.restore_unacked_once()
        assert queued(redis_client, SMALL) == ["t1"]
        assert not redis_client.exists("held", "held-index")

    def test_they_return_after_a_death_in_the_middle(
        self, fetcher: Fetcher, producer_app: Celery, redis_client: redis.Redis
    ) -> None:
        """Kombu's lock, which a worker that is killed while it returns messages leaves for five minutes, holds up nobody."""
        send(producer_app, "t1", task="shop.word")
        fetcher.fetch()
        redis_client.set(fetcher.channel.unacked_mutex_key, "of a dead worker", ex=300)
        fetcher.channel.visibility_timeout = -1
        fetcher.channel.qos.restore_visible()
        assert queued(redis_client, SMALL) == ["t1"]

    def test_their_age_is_by_redis_s_clock(
        self, fetcher: Fetcher, producer_app: Celery, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A worker whose own clock is a day ahead returns nothing that another one has just fetched."""
        monkeypatch.setattr("kombu.transport.redis.time", lambda: time.time() + 86_400)
        send(producer_app, "t1", task="shop.word")
        fetcher.fetch()
        fetcher.channel.qos.restore_visible()
        assert queued(redis_client, SMALL) == []


class TestMore:
    @pytest.fixture
    def scripts(self, redis_url: str, holding: Holding) -> Iterator[AutoPipeline]:
        with closing(AutoPipeline(redis_url)) as scripts:
            holding.scripts = scripts
            yield scripts

    def ids(self, fetcher: Fetcher) -> list[str]:
        return [message.headers["id"] for message in fetcher.messages]

    @pytest.mark.usefixtures("scripts")
    def test_some_of_what_waits_comes_along(
        self, fetcher: Fetcher, room: Room, producer_app: Celery, redis_client: redis.Redis
    ) -> None:
        """With one message come half of those behind it, in order, the urgent first, and as many as there is room for."""
        redis_client.hset(keys.WORKERS, mapping={"this": "1", "another": "1"})
        room.queues = {SMALL}
        for number in range(4):
            send(producer_app, f"t{number}")
        send(producer_app, "urgent later", priority=5)
        fetcher.fetch()
        assert self.ids(fetcher) == ["t0", "t1", "t2"]
        assert queued(redis_client, SMALL) == ["t3"]
        for number in range(20):
            send(producer_app, f"u{number}")
        fetcher.fetch()
        assert len(fetcher.messages) == 3 + room.free(SMALL)

    @pytest.mark.usefixtures("scripts")
    def test_all_that_waits_comes_along(
        self, fetcher: Fetcher, room: Room, producer_app: Celery, redis_client: redis.Redis
    ) -> None:
        """A worker that is the only one leaves nothing that it has room for."""
        redis_client.hset(keys.WORKERS, "this", "1")
        room.queues = {SMALL}
        for number in range(4):
            send(producer_app, f"t{number}")
        fetcher.fetch()
        assert self.ids(fetcher) == ["t0", "t1", "t2", "t3"]

    @pytest.mark.usefixtures("scripts")
    def test_they_are_held(self, fetcher: Fetcher, room: Room, producer_app: Celery, redis_client: redis.Redis) -> None:
        """Each is noted as kombu notes it, is acknowledged as any, and can be handed back."""
        redis_client.hset(keys.WORKERS, mapping={"this": "1", "another": "1"})
        room.queues = {SMALL}
        for number in range(3):
            send(producer_app, f"t{number}")
        fetcher.fetch()
        first, second = fetcher.messages
        noted = [loads(redis_client.hget("held", message.delivery_tag) or "") for message in (first, second)]
        assert [note[0] for note in noted] == [first._raw, second._raw]
        assert noted[0][1:] == noted[1][1:] == [first.delivery_info["exchange"], SMALL]
        assert set(redis_client.zrange("held-index", 0, -1)) == {first.delivery_tag, second.delivery_tag}
        second.requeue()
        assert queued(redis_client, SMALL) == ["t1", "t2"]
        first.ack()
        assert not redis_client.exists("held", "held-index")
        assert fetcher.channel.holding.taken == set()

    @pytest.mark.usefixtures("scripts")
    def test_none_without_room(self, fetcher: Fetcher, room: Room, producer_app: Celery) -> None:
        """Where there is no more room nothing comes along, and nothing is called for it."""
        room.queues = {LARGE}
        for number in range(3):
            send(producer_app, f"t{number}", queue=LARGE)
        room.free = lambda queue: 0  # type: ignore[method-assign]
        fetcher.fetch()
        assert self.ids(fetcher) == ["t0"]

    @pytest.mark.usefixtures("scripts")
    def test_none_beside_one_alone(
        self, fetcher: Fetcher, room: Room, producer_app: Celery, scripts: AutoPipeline
    ) -> None:
        """A worker that runs nothing else asks for nothing more: a lone request costs one call less."""
        room.queues = {LARGE}
        room.in_use = lambda: 1  # type: ignore[method-assign]
        for number in range(3):
            send(producer_app, f"t{number}", queue=LARGE)
        fetcher.fetch()
        assert self.ids(fetcher) == ["t0"]
        assert scripts.calls <= 3  # hold, and two more where the server does not know the script


class TestReferences:
    def test_a_prompt_that_waits_is_there_once(self, producer_app: Celery, redis_client: redis.Redis) -> None:
        """Of a long prompt Redis holds its base64 and a little more."""
        values = {"prompt": "x" * 30_000, "model": "fake:1"}
        for number in range(20):
            producer_app.send_task(
                "tasks.generate", kwargs=values, task_id=f"t{number}", queue=SMALL, ignore_result=True
            )
        # Of the keys alone: buffers of connections come and go.
        taken = sum(redis_client.memory_usage(key, samples=0) or 0 for key in redis_client.scan_iter())
        assert 20 * 30_000 < taken < 20 * 1.6 * 30_000

    def test_what_was_claimed_meanwhile_is_nothing(
        self, fetcher: Fetcher, room: Room, producer_app: Celery, redis_client: redis.Redis, redis_url: str
    ) -> None:
        """A request that was sent twice is delivered once where the first delivery was claimed before the second is taken."""
        room.queues = {SMALL}
        for _ in range(2):
            send(producer_app, "t1")
        message = fetcher.fetch()
        with closing(connect(redis_url)) as client:
            Journal(client).claim("t1", "mac@lab#b1")
        send(producer_app, "t2")
        assert queued(redis_client, SMALL) == ["t1", "t2"]
        assert fetcher.fetch() is message
        assert fetcher.fetch().headers["id"] == "t2"
        assert redis_client.hlen("held") == 2

    def test_what_has_ended_while_it_waits_is_delivered(
        self, fetcher: Fetcher, room: Room, producer_app: Celery, redis_client: redis.Redis, redis_url: str
    ) -> None:
        """The worker that takes it tells its chord; with its claim the entry goes."""
        room.queues = {SMALL}
        send(producer_app, "t1")
        with closing(connect(redis_url)) as client:
            journal = Journal(client)
            end = End(attempt=0, index=0, finish_reason="cancelled", usage={})
            assert journal.end_unclaimed("t1", end) == "ended"
            assert fetcher.fetch().headers["id"] == "t1"
            assert journal.claim("t1", "mac@lab#b1").kind == "ended"
        assert not redis_client.exists(keys.LEDGER)

    def test_it_is_fetched_by_others_too(self, fetcher: Fetcher, producer_app: Celery) -> None:
        """``basic_get`` of a client that uses the transport gets the message."""
        send(producer_app, "t1")
        message = fetcher.channel.basic_get(SMALL)
        assert message.headers["id"] == "t1"
        assert fetcher.channel.basic_get(SMALL) is None


class TestLedger:
    def test_is_written_with_the_message(self, producer_app: Celery, redis_client: redis.Redis) -> None:
        """The entry of a generation has its message, its list, which has a reference alone, and the server's own time."""
        before = time.time()
        send(producer_app, "t1", priority=5)
        entry = json.loads(redis_client.hget(keys.LEDGER, "t1") or "{}")
        assert entry["queue"] == f"{SMALL}{SEPARATOR}5"
        assert json.loads(entry["message"])["headers"]["id"] == "t1"
        assert redis_client.lindex(entry["queue"], 0) == reference("t1")
        assert before - 1 < entry["at"] < time.time() + 1

    def test_is_for_generations(self, producer_app: Celery, redis_client: redis.Redis) -> None:
        """Another task is queued as ever, and written nowhere else."""
        send(producer_app, "t1", task="billing.charge")
        assert queued(redis_client, SMALL) == ["t1"]
        assert not redis_client.exists(keys.LEDGER)


class TestClaiming:
    """What the script that fetches claims, and what it leaves to the request's thread."""

    @pytest.fixture
    def claims(self, redis_url: str, holding: Holding, room: Room) -> Iterator[list[str]]:
        """The ids of what was claimed; of the model ``fake:1``."""
        found: list[str] = []
        with closing(connect(redis_url)) as client, closing(AutoPipeline(redis_url)) as scripts:
            journal = Journal(client)

            class Noted:
                def terms(self, _queue: str) -> tuple[str | int, ...]:
                    return *journal.claim_terms("mac@lab#b1", "feed"), "\nfake:1\n"

                def note(self, task_id: str, *_: object) -> None:
                    found.append(task_id)

            holding.claims, holding.scripts = Noted(), scripts
            room.queues = {SMALL}
            room.in_use = lambda: 0  # type: ignore[method-assign]
            yield found

    def test_a_new_request(
        self, fetcher: Fetcher, claims: list[str], producer_app: Celery, redis_client: redis.Redis, redis_url: str
    ) -> None:
        """It is held, its journal begins with the claim, its entry is gone, and no other worker gets it."""
        send(producer_app, "t1")
        message = fetcher.fetch()
        assert claims == ["t1"]
        assert redis_client.hkeys("held") == [message.delivery_tag]
        assert not redis_client.exists(keys.LEDGER)
        redis_client.set(keys.alive("mac@lab#b1"), "", ex=60)
        redis_client.hset(keys.unacked("mac@lab#b1"), message.delivery_tag, "")
        with closing(connect(redis_url)) as client:
            answer = Journal(client).claim("t1", "other@lab#b2")
            assert (answer.kind, answer.owner, answer.attempt) == ("busy", "mac@lab#b1", 1)
            # Its own worker ends it where no task will run, as after a revoke; nobody else does.
            end = End(attempt=0, index=0, finish_reason="cancelled", usage={})
            assert Journal(client).end_unclaimed("t1", end) == "busy"
            assert Journal(client).end_unclaimed("t1", end, "feed") == "ended"

    @pytest.mark.parametrize("why", ["model", "expires", "cancelled", "journal", "fingerprint"])
    def test_all_others_are_left(
        self,
        fetcher: Fetcher,
        claims: list[str],
        producer_app: Celery,
        redis_client: redis.Redis,
        redis_url: str,
        why: str,
    ) -> None:
        """Of another model, with a time to expire, cancelled, with a journal, or sent so long ago that its digits are gone."""
        with closing(connect(redis_url)) as client:
            journal = Journal(client)
            if why == "journal":
                journal.claim("t1", "other@lab#b2")
            elif why == "cancelled":
                journal.mark_cancelled("t1")
        values = {"prompt": "a", "model": "fake:2" if why == "model" else "fake:1"}
        options = {"expires": 60} if why == "expires" else {}
        producer_app.send_task(
            "tasks.generate", kwargs=values, task_id="t1", queue=SMALL, ignore_result=True, **options
        )
        if why == "fingerprint":
            redis_client.delete(keys.request("t1"))
        assert fetcher.fetch().headers["id"] == "t1"
        assert claims == []
        assert redis_client.hexists(keys.LEDGER, "t1")

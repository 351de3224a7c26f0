"""Requests that are set aside, in a real server: where they wait, who asks for them, what counts them."""

from __future__ import annotations

import json
import time
from contextlib import closing
from queue import Empty
from typing import TYPE_CHECKING, Any

import pytest

from tasks.broker.channel.holding import OPTION, Holding
from tasks.broker.queues.aside import read_aside
from tasks.broker.queues.limits import QueueLimit, position, write_limits
from tasks.broker.queues.queues import aside_list, depths, queue_and_model
from tasks.errors import QueueFull
from tasks.messages.registry import EngineState
from tasks.models.key import EngineKey, key_of
from tasks.registry import Registry
from tasks.server import keys
from tasks.server.connection import connect
from tasks.worker.engines.backlog import Backlog
from tasks.worker.engines.changes import Changes
from tasks.worker.engines.peers import RegistryPeers
from tests.engines import NoPeers
from tests.fleet import Ghost
from tests.integration.test_transport import Fetcher, queued, send
from tests.support import wait_until
from worker_config.model_entry import ModelEntry
from worker_config.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import redis
    from celery import Celery

    from tasks.demo.embedded import EmbeddedServer

QUEUE = "tier-under-3B"
MODEL = EngineKey("fake:1")
GB = 10**9
STEP_TOKENS = Settings().prefill_step_tokens


class Room:
    """Has room for one queue, and asks for what was set aside for these models."""

    def __init__(self) -> None:
        self.models: tuple[Sequence[str], Sequence[str]] = ((), ())

    def has_room(self, queue: str, *, urgent: bool = False) -> bool:
        return queue == QUEUE

    @staticmethod
    def free(_queue: str) -> int:
        return 1

    @staticmethod
    def in_use() -> int:
        return 1

    def aside_lists(self, _queue: str) -> tuple[Sequence[str], Sequence[str]]:
        return self.models


@pytest.fixture
def room() -> Room:
    return Room()


@pytest.fixture
def fetcher(producer_app: Celery, room: Room, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fetcher]:
    """A worker's channel, without the worker."""
    options = {"unacked_key": "held", "unacked_index_key": "held-index", OPTION: Holding(room=room)}
    with producer_app.connection_for_read(transport_options=options) as connection:
        yield Fetcher(connection.channel(), monkeypatch)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A client that answers in bytes."""
    with closing(connect(redis_url)) as client:
        yield client


def put_aside(fetcher: Fetcher, model: str = MODEL) -> None:
    """Fetch a message, and set it aside."""
    message = fetcher.fetch()
    fetcher.channel.holding.aside[message.delivery_tag] = model
    message.reject(requeue=True)


class TestPlace:
    def test_behind_those_that_were_before_it(
        self, fetcher: Fetcher, room: Room, producer_app: Celery, redis_client: redis.Redis
    ) -> None:
        """What is set aside queues up by model and priority; what comes from there and goes back comes first again."""
        for number in range(3):
            send(producer_app, f"t{number}", QUEUE)
        send(producer_app, "batch", QUEUE, priority=9)
        for _ in range(4):
            put_aside(fetcher)
        own = aside_list(QUEUE, 0, MODEL)
        assert queued(redis_client, own) == ["t0", "t1", "t2"]
        assert queued(redis_client, aside_list(QUEUE, 9, MODEL)) == ["batch"]
        assert not redis_client.exists("held", "held-index", QUEUE)
        room.models = ((MODEL,), ())
        put_aside(fetcher)
        assert queued(redis_client, own) == ["t0", "t1", "t2"]
        assert fetcher.fetch().headers["id"] == "t0"

    def test_only_who_asks_gets_it(
        self, fetcher: Fetcher, room: Room, producer_app: Celery, redis_client: redis.Redis
    ) -> None:
        """Lists of models are asked for before and after the queue's own, as the room says; the queue's name stays its name."""
        send(producer_app, "t0", QUEUE)
        put_aside(fetcher)
        fetcher.fetch_nothing()
        send(producer_app, "t1", QUEUE)
        room.models = ((), (MODEL,))
        assert [fetcher.fetch().headers["id"] for _ in range(2)] == ["t1", "t0"]
        assert fetcher.messages[-1].delivery_info["routing_key"] == QUEUE
        room.models = (("loaded",), ("cold",))
        fetcher.fetch_nothing()
        assert fetcher.asked[-1][:3] == [aside_list(QUEUE, 0, "loaded"), QUEUE, aside_list(QUEUE, 0, "cold")]

    def test_a_fetch_that_is_out_learns_of_it(self, fetcher: Fetcher, room: Room, producer_app: Celery) -> None:
        """When other models are asked for, the fetch that is out comes back at once and asks again."""
        send(producer_app, "t0", QUEUE)
        put_aside(fetcher)
        fetcher.channel._brpop_start(30)
        room.models = ((MODEL,), ())
        started = time.monotonic()
        fetcher.channel.refetch()
        with pytest.raises(Empty):
            fetcher.channel._brpop_read()
        assert time.monotonic() - started < 15
        assert fetcher.fetch().headers["id"] == "t0"

    def test_other_tasks_have_no_models(
        self, fetcher: Fetcher, producer_app: Celery, redis_client: redis.Redis
    ) -> None:
        """A task of another kind goes back to its queue."""
        send(producer_app, "t0", QUEUE, task="other")
        put_aside(fetcher)
        assert queued(redis_client, QUEUE) == ["t0"]
        assert not redis_client.exists(keys.ASIDE)


class TestCounting:
    def test_it_still_waits_since_it_was_submitted(
        self, fetcher: Fetcher, producer_app: Celery, redis_client: redis.Redis
    ) -> None:
        """The ledger follows it to its list, and keeps the time of its submission."""
        send(producer_app, "t0", QUEUE)
        before = _entry(redis_client, "t0")
        put_aside(fetcher)
        after = _entry(redis_client, "t0")
        assert after["at"] == before["at"]
        assert after["queue"] == aside_list(QUEUE, 0, MODEL)

    def test_it_counts_as_waiting(self, fetcher: Fetcher, producer_app: Celery, client: redis.Redis) -> None:
        """Depth, bound and position know of it: a full queue stays full, and who is aside waits for those before it alone."""
        for number in range(2):
            send(producer_app, f"t{number}", QUEUE)
            put_aside(fetcher)
        send(producer_app, "t2", QUEUE)
        (depth,) = depths(client, [QUEUE])
        assert depth.depth == 3
        assert depth.oldest_s is not None
        place = position(client, "t1")
        assert place is not None
        assert place.ahead == 1
        write_limits(client, {QUEUE: QueueLimit(3, 1.0)})
        with pytest.raises(QueueFull, match="3 requests wait in"):
            send(producer_app, "t3", QUEUE)

    def test_what_is_set_aside_can_be_read(
        self, fetcher: Fetcher, room: Room, producer_app: Celery, client: redis.Redis
    ) -> None:
        """Everybody sees what is set aside, how much and since when; a list that was emptied is forgotten."""
        assert read_aside(client) == []
        for number in range(2):
            send(producer_app, f"t{number}", QUEUE)
            put_aside(fetcher, "owner/a model@7")
        (found,) = read_aside(client)
        assert (found.queue, found.model, found.length) == (QUEUE, "owner/a model@7", 2)
        assert 0 <= found.age_s < 60
        assert queue_and_model(found.list_name) == (QUEUE, "owner/a model@7")
        room.models = (("owner/a model@7",), ())
        fetcher.fetch()
        fetcher.fetch()
        assert read_aside(client) == []
        assert not client.exists(keys.ASIDE)


def _entry(client: redis.Redis, task_id: str) -> dict[str, Any]:
    entry: Any = client.hget(keys.LEDGER, task_id)
    return dict(json.loads(entry))


class TestBacklog:
    def test_it_looks_now_and_then(
        self, fetcher: Fetcher, room: Room, producer_app: Celery, client: redis.Redis
    ) -> None:
        """What others set aside comes to be known, the longest waiting first; what is no queue of this worker does not."""
        changes = Changes()
        backlog = Backlog(lambda: read_aside(client), [QUEUE], NoPeers(), changes)
        backlog.start()
        for model in ("first", "second"):
            send(producer_app, model, QUEUE)
            put_aside(fetcher, model)
            time.sleep(0.01)
        wait_until(lambda: [aside.key for aside in backlog.waiting()] == ["first", "second"])
        assert changes.count
        room.models = (("first", "second"), ())
        fetcher.fetch()
        wait_until(lambda: [aside.key for aside in backlog.waiting()] == ["second"])
        backlog.stop()
        other = Backlog(lambda: read_aside(client), ["tier-3-7B"], NoPeers(), Changes())
        other.look()
        assert other.waiting() == []

    def test_what_it_sets_aside_itself_is_known_at_once(self, client: redis.Redis) -> None:
        """Until Redis has it or has given it away; Redis's absence changes nothing."""
        found = []
        for noted_s in (3600.0, 0.0):
            backlog = Backlog(lambda: read_aside(client), [QUEUE], NoPeers(), Changes(), noted_s=noted_s)
            backlog.note(QUEUE, MODEL)
            backlog.look()
            found.append([(aside.queue, aside.key) for aside in backlog.waiting()])
        assert found == [[(QUEUE, MODEL)], []]

    def test_without_redis(self, redis_server: EmbeddedServer, client: redis.Redis) -> None:
        """What was known stays known."""
        backlog = Backlog(lambda: read_aside(client), [QUEUE], NoPeers(), Changes())
        backlog.note(QUEUE, MODEL)
        redis_server.stop()
        backlog.look()
        assert len(backlog.waiting()) == 1


class TestPeers:
    ENTRY = ModelEntry(name="fake:1:weights_mb=1000", kind="fake", source="1")

    def test_what_the_others_have_and_could_have(self, client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
        """Other live workers of the queue are asked after, this one and those that take nothing are not."""
        monkeypatch.setattr("tasks.worker.engines.peers.LOOK_S", 3600.0)
        registry = Registry(client)
        with Ghost(client, "large@lab") as large, Ghost(client, "small@lab") as small, Ghost(client, "me@lab") as me:
            for ghost, room_gb in ((large, 8), (small, 1), (me, 8)):
                ghost.record.queues, ghost.record.room_bytes = [QUEUE], room_gb * GB
                ghost.beat()
            peers = RegistryPeers(registry, me.identity, STEP_TOKENS)
            assert not peers.could_load(QUEUE, self.ENTRY)  # it has not looked yet
            peers.look()
            assert peers.could_load(QUEUE, self.ENTRY)
            assert not peers.could_load("tier-3-7B", self.ENTRY)
            assert not peers.have_loaded(QUEUE, MODEL)
            assert peers.room(QUEUE) == "large@lab 8.0 GB, small@lab 1.0 GB"
            large.record.paused = True
            small.record.models = [MODEL]
            small.record.engines = [EngineState(model=MODEL, state="ready")]
            large.beat()
            small.beat()
            peers.look()
            assert not peers.have_loaded(QUEUE, MODEL), "the registry was read again at once"
            fresh = RegistryPeers(registry, me.identity, STEP_TOKENS)
            fresh.look()
            assert fresh.have_loaded(QUEUE, MODEL)
            assert not fresh.could_load(QUEUE, self.ENTRY)
            assert not fresh.could_load(QUEUE, ModelEntry(name="x", kind="path", source="/nowhere/house"))

    def test_who_does_not_know_a_model(self, client: redis.Redis) -> None:
        """A worker that does not know a model cannot load it, however large it is; others may know it."""
        with Ghost(client, "large@lab") as large, Ghost(client, "small@lab") as small:
            for ghost, room_gb in ((large, 8), (small, 1)):
                ghost.record.queues, ghost.record.room_bytes = [QUEUE], room_gb * GB
            large.record.unknown_models = [self.ENTRY.name]
            peers = RegistryPeers(Registry(client), "me@lab#1", STEP_TOKENS)
            large.beat()
            small.beat()
            peers.look()
            assert not peers.could_load(QUEUE, self.ENTRY)
            assert peers.may_know(QUEUE, key_of(self.ENTRY))
            small.record.unknown_models = [self.ENTRY.name]
            small.beat()
            fresh = RegistryPeers(Registry(client), "me@lab#1", STEP_TOKENS)
            fresh.look()
            assert not fresh.may_know(QUEUE, key_of(self.ENTRY))

    def test_the_dead_do_not_count(self, client: redis.Redis) -> None:
        """A worker whose lease has passed is nobody."""
        with Ghost(client, "dead@lab") as dead:
            dead.record.queues, dead.record.models = [QUEUE], [MODEL]
            dead.beat()
            client.delete(keys.alive(dead.identity))
            peers = RegistryPeers(Registry(client), "me@lab#1", STEP_TOKENS)
            peers.look()
            assert not peers.have_loaded(QUEUE, MODEL)

    def test_without_redis(self, client: redis.Redis, redis_server: EmbeddedServer) -> None:
        """What was known stays known, and nothing is raised."""
        redis_server.stop()
        peers = RegistryPeers(Registry(client), "me@lab#1", STEP_TOKENS)
        peers.look()
        assert peers.room(QUEUE) == ""

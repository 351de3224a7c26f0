"""The registry on a real server: registration, leases, succession, history."""

from __future__ import annotations

import json
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import redis

from tasks.errors import BrokerUnavailable
from tasks.messages.registry import Unreadable, WorkerRecord
from tasks.registry import DuplicateWorker, Grace, Registry
from tasks.registry.lifeline import Lifeline
from tasks.registry.registry import HISTORY_LENGTH
from tasks.server import keys
from tasks.server.connection import connect
from tests.fleet import LEASE_MS, NO_GRACE, Ghost, hold, message, record
from tests.support import commands_processed, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.demo.embedded import EmbeddedServer


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A client that answers in bytes."""
    with closing(connect(redis_url)) as client:
        yield client


def stored(client: redis.Redis, node: str = "mac@lab") -> dict[str, Any]:
    """The record that is in Redis."""
    return dict(json.loads(client.hget(keys.WORKERS, node) or b"{}"))


def redis_now(client: redis.Redis) -> float:
    """The server's clock."""
    seconds, microseconds = client.time()
    return float(seconds + microseconds / 1e6)


def test_a_record_is_stamped_by_redis(client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker whose clock is an hour off has the same times as any other."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 3600)
    registration = Registry(client).register(record(), LEASE_MS)
    Registry(client).beat(record(started_at=registration.started_at), LEASE_MS, loop_age_s=2.5)
    values = stored(client)
    assert abs(values["started_at"] - redis_now(client)) < 600
    assert abs(values["beat_at"] - redis_now(client)) < 600
    assert values["beat_at"] - values["loop_at"] == pytest.approx(2.5, abs=0.001)
    assert registration.started_at == pytest.approx(values["started_at"])


def test_what_was_registered_is_read_back(client: redis.Redis) -> None:
    """All that a worker says of itself reaches the readers, with its lease."""
    with Ghost(client) as ghost:
        reading = ghost.registry.read()
        (found,) = reading.records
        assert isinstance(found, WorkerRecord)
        assert (found.node, found.boot, found.queues) == ("mac@lab", "b1", ["tier-3-7B"])
        assert reading.leases == {"mac@lab#b1": ghost.lifeline.client_id}
        assert 0 <= reading.now - found.beat_at < 600


def test_a_vanished_record_is_registered_again(client: redis.Redis) -> None:
    """A worker whose record Redis has lost writes it again at its next beat, with the time it really started."""
    with Ghost(client) as ghost:
        assert ghost.beat() == "ok"
        client.flushall()
        ghost.record.started_at = 1234.5
        assert ghost.beat() == "registered"
        assert ghost.beat() == "ok"
        assert stored(client)["started_at"] == 1234.5
        assert client.smembers(keys.OWNERS) == {b"mac@lab#b1"}


def test_a_live_duplicate_is_refused(client: redis.Redis) -> None:
    """A second worker of the same name does not start while the first one lives."""
    with Ghost(client) as ghost:
        with pytest.raises(DuplicateWorker, match="called mac@lab is alive"):
            Registry(client, NO_GRACE).register(record(boot="b2"), LEASE_MS)
        assert ghost.beat() == "ok"


def test_a_live_duplicate_that_reconnects_is_refused(client: redis.Redis) -> None:
    """A predecessor that was just reconnecting when it was looked at keeps its name."""
    with Ghost(client) as ghost:
        ghost.die()
        back = threading.Timer(0.4, lambda: (ghost.lifeline.connect(), ghost.beat()))
        back.start()
        patient = Registry(client, Grace(absent_s=60.0, restarted_s=0.0))
        with pytest.raises(DuplicateWorker):
            patient.register(record(boot="b2"), LEASE_MS)
        back.join()


def test_a_worker_without_a_connection_to_look_for_is_alive_while_its_lease_is(client: redis.Redis) -> None:
    """Where a lease names no connection, only its end says that the worker is gone."""
    Registry(client).register(record(), LEASE_MS)
    with pytest.raises(DuplicateWorker):
        Registry(client).register(record(boot="b2"), LEASE_MS)
    client.delete(keys.alive("mac@lab#b1"))
    assert Registry(client).register(record(boot="b2"), LEASE_MS).superseded == "mac@lab#b1"


def test_a_dead_predecessor_is_superseded(client: redis.Redis) -> None:
    """kill -9 and a restart under the same name within a second: registered, and the predecessor is known to be dead."""
    with Ghost(client) as ghost:
        ghost.die()
        registration = Registry(client, NO_GRACE).register(record(boot="b2"), LEASE_MS)
        assert registration.superseded == "mac@lab#b1"
        assert stored(client)["boot"] == "b2"
        assert not client.exists(keys.alive("mac@lab#b1"))
        (departed,) = Registry(client).history()
        assert (departed["departed"], departed["boot"]) == ("superseded", "b1")
        assert ghost.beat() == "swept"
        assert client.smembers(keys.OWNERS) == {b"mac@lab#b1", b"mac@lab#b2"}


def test_a_young_server_gives_the_predecessor_time(client: redis.Redis) -> None:
    """Just after a restart of Redis an absent predecessor is waited for."""
    with Ghost(client) as ghost:
        patient = Registry(client, Grace(absent_s=0.0, restarted_s=1e9, look_s=0.05))
        ghost.die()
        back = threading.Timer(0.5, lambda: (ghost.lifeline.connect(), ghost.beat()))
        back.start()
        with pytest.raises(DuplicateWorker):
            patient.register(record(boot="b2"), LEASE_MS)
        back.join()


def test_a_predecessor_that_comes_back(client: redis.Redis) -> None:
    """Redis has forgotten that a worker took its dead predecessor's name over: the younger of the two has the name again."""
    with Ghost(client) as old:
        before: Any = client.hget(keys.WORKERS, "mac@lab")
        old.die()
        with Ghost(client, boot="b2") as new:
            found: Any = client.hget(keys.WORKERS, "mac@lab")
            new.record.started_at = json.loads(found)["started_at"]
            client.hset(keys.WORKERS, "mac@lab", before)
            client.delete(keys.swept(old.identity))
            assert new.beat() == "registered"
            assert new.beat() == "ok"
            old.record.started_at = json.loads(before)["started_at"]
            assert old.registry.beat(old.record, LEASE_MS).answer == "superseded"


def test_the_superseded_is_told(client: redis.Redis) -> None:
    """A boot whose name has another one, without having been swept, writes nothing."""
    with Ghost(client) as ghost:
        client.hset(keys.WORKERS, "mac@lab", json.dumps({"v": 1, "node": "mac@lab", "boot": "b2"}))
        assert ghost.beat() == "superseded"
        assert stored(client)["boot"] == "b2"


def test_a_worker_that_leaves_is_remembered(client: redis.Redis) -> None:
    """Leaving moves the record into the history, and owes nobody anything."""
    with Ghost(client) as ghost:
        assert ghost.registry.leave(ghost.record)
        assert ghost.registry.records() == []
        assert ghost.registry.history()[0]["departed"] == "left"
        assert not client.exists(keys.alive(ghost.identity), keys.OWNERS)
        assert not ghost.registry.leave(ghost.record)


def test_a_worker_that_leaves_with_messages_stays_their_owner(client: redis.Redis) -> None:
    """What a leaving worker could not give back is the sweep's to find."""
    with Ghost(client) as ghost:
        hold(client, ghost.identity, [message("t1")])
        ghost.registry.leave(ghost.record)
        assert client.smembers(keys.OWNERS) == {b"mac@lab#b1"}


def test_nobody_takes_the_record_of_another_boot(client: redis.Redis) -> None:
    """A late leave of a superseded worker does not remove its successor."""
    with Ghost(client):
        assert not Registry(client).leave(record(boot="b0"))
        assert stored(client)["boot"] == "b1"


def test_a_worker_that_came_back_is_not_buried(client: redis.Redis) -> None:
    """A beat between the sweep's look and its verdict wins."""
    with Ghost(client) as ghost:
        seen = ghost.lifeline.client_id
        ghost.die()
        ghost.lifeline.connect()
        ghost.beat()
        assert not ghost.registry.declare_dead("mac@lab", "b1", lease=seen, reason="gone")
        assert ghost.registry.declare_dead("mac@lab", "b1", lease=ghost.lifeline.client_id, reason="gone")
        assert not ghost.registry.declare_dead("mac@lab", "b1", lease=ghost.lifeline.client_id, reason="gone")
        assert ghost.beat() == "swept"


def test_the_history_is_bounded(client: redis.Redis) -> None:
    """Only the last hundred departures are kept, newest first."""
    for number in range(HISTORY_LENGTH + 5):
        worker = record(boot=f"b{number}")
        Registry(client).register(worker, LEASE_MS)
        Registry(client).leave(worker)
    history = Registry(client).history()
    assert len(history) == HISTORY_LENGTH
    assert history[0]["boot"] == f"b{HISTORY_LENGTH + 4}"


def test_departures_are_announced(client: redis.Redis) -> None:
    """Whoever listens on the channel of events hears of arrivals and departures."""
    untyped: Any = client
    with closing(untyped.pubsub(ignore_subscribe_messages=True)) as events:
        events.subscribe(keys.EVENTS)
        wait_until(lambda: client.pubsub_numsub(keys.EVENTS)[0][1], about="the subscription")
        Registry(client).register(record(node='a "b"@ü'), LEASE_MS)
        Registry(client).leave(record(node='a "b"@ü'))
        heard: list[dict[str, Any]] = []
        while len(heard) < 2:
            # The first message is the subscription's own, which counts as none.
            event = wait_until(lambda: events.get_message(timeout=0.1), about="an announcement")
            heard.append(json.loads(event["data"]))
    assert [(event["event"], event["node"], event["boot"]) for event in heard] == [
        ("registered", 'a "b"@ü', "b1"),
        ("left", 'a "b"@ü', "b1"),
    ]


@pytest.mark.parametrize("garbage", [b"", b"\xff", b"[]", b'{"boot": 5}', b"[" * 5000])
def test_garbage_in_the_hash_harms_nobody(client: redis.Redis, garbage: bytes) -> None:
    """It is shown as unreadable, and a worker of that name registers over it."""
    client.hset(keys.WORKERS, "mac@lab", garbage)
    client.hset(keys.WORKERS, b"\xff\xfe", garbage)
    assert [type(record) for record in Registry(client).records()] == [Unreadable, Unreadable]
    Registry(client).register(record(), LEASE_MS)
    assert Registry(client).beat(record(), LEASE_MS).answer == "ok"


def test_connections_are_found_by_number_and_name(client: redis.Redis) -> None:
    """A number that the server has given to somebody else, or to nobody, is no sign of life."""
    with Ghost(client, "ä b@c") as ghost:
        leases = {ghost.identity: ghost.lifeline.client_id, "x@y#1": ghost.lifeline.client_id, "z@y#1": "999999"}
        found = ghost.registry.connections({**leases, "w@y#1": ""})
        assert found.identities == frozenset({ghost.identity})
        assert found.run_id
        assert ghost.registry.connections({}).identities == frozenset()


def test_a_server_that_hides_its_connections_is_understood(client: redis.Redis, redis_server: EmbeddedServer) -> None:
    """Without permission for CLIENT LIST the registry says that it does not know."""
    client.acl_setuser(
        "shy", enabled=True, passwords=["+p"], categories=["+@all"], keys=["*"], commands=["-client|list"]
    )
    try:
        with closing(connect(f"redis://shy:p@127.0.0.1:{redis_server.port}/0")) as shy:
            assert Registry(shy).connections({"a@b#1": "1"}).identities is None
    finally:
        client.acl_deluser("shy")


def test_a_connection_is_named_again_after_each_loss(client: redis.Redis) -> None:
    """The lifeline never reconnects unseen: an error first, then a new number under the old name."""
    with closing(Lifeline(client, "mac@lab#b1")) as lifeline:
        first = lifeline.connect()
        number = lifeline.client_id
        client.client_kill_filter(_id=number)
        with pytest.raises(redis.ConnectionError):
            wait_until(lambda: not first.ping())
        lifeline.close()
        assert lifeline.fileno() is None
        assert lifeline.connect().client_getname() == keys.connection("mac@lab#b1")
        assert lifeline.client_id not in {"", number}


def test_an_unreachable_server_is_one_clear_error() -> None:
    """Every method says what it was doing, and that Redis is away."""
    with closing(connect("redis://127.0.0.1:1/0")) as away:
        for act in (
            lambda: Registry(away).register(record(), 1),
            lambda: Registry(away).beat(record(), 1),
            lambda: Registry(away).read(),
            lambda: Registry(away).connections({}),
            lambda: Registry(away).history(),
            lambda: Registry(away).last_sweep(),
            lambda: Lifeline(away, "x").connect(),
        ):
            with pytest.raises(BrokerUnavailable, match="cannot be reached"):
                act()


def test_five_hundred_workers_are_read_in_few_commands(client: redis.Redis) -> None:
    """A large fleet costs its reader no more round trips than a small one."""
    hardware = {"chip": "Apple M2 Pro", "padding": "x" * 2000}
    for number in range(500):
        Registry(client).register(record(f"w{number:03}@lab", hardware=hardware), LEASE_MS)
    before = commands_processed(client)
    reading = Registry(client).read()
    spent = commands_processed(client) - before
    assert len(reading.records) == len(reading.leases) == 500
    assert spent <= 10

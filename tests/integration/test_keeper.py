"""The keeper on a real server: its timer, its connection, and what it survives."""

from __future__ import annotations

import json
import logging
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tasks.errors import BrokerUnavailable
from tasks.journal.writer import Journal
from tasks.registry import DuplicateWorker, Registry
from tasks.registry.lifeline import Lifeline
from tasks.registry.values import text
from tasks.server import keys
from tasks.server.connection import connect
from tasks.worker.heartbeat.cancels import CancelWatch
from tasks.worker.heartbeat.keeper import Keeper
from tasks.worker.heartbeat.sweep_watch import SweepWatch
from tasks.worker.heartbeat.waker import Waker
from tests.fleet import NO_GRACE, record
from tests.support import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis

    from tasks.demo.embedded import EmbeddedServer
    from tasks.messages.registry import WorkerRecord

IDENTITY = "mac@lab#b1"


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A client that answers in bytes."""
    with closing(connect(redis_url)) as client:
        yield client


@pytest.fixture
def make(redis_url: str) -> Iterator[Callable[..., Keeper]]:
    """Makes keepers, and ends them after the test."""
    made: list[tuple[Keeper, redis.Redis]] = []

    def make(describe: Callable[[], WorkerRecord] = record, **options: Any) -> Keeper:
        client = connect(redis_url)
        lifeline = Lifeline(client, describe().identity)
        keeper = Keeper(Registry(client, NO_GRACE), lifeline, describe, **{"interval_s": 0.05, **options})
        made.append((keeper, client))
        return keeper

    yield make
    for keeper, client in made:
        keeper.stop()
        client.close()


def stored(client: redis.Redis) -> dict[str, Any]:
    """The record that is in Redis; empty if there is none."""
    return dict(json.loads(client.hget(keys.WORKERS, "mac@lab") or b"{}"))


def lease_of(client: redis.Redis) -> str:
    """The number in the worker's lease; empty if it has none."""
    return text(client.get(keys.alive(IDENTITY)) or "")


def test_a_worker_is_registered_when_start_returns(client: redis.Redis, make: Callable[..., Keeper]) -> None:
    """The first record is there at once, with the number of a connection that has the worker's name."""
    make(interval_s=60.0).start()
    assert stored(client)["status"] == "online"
    number = lease_of(client)
    (connection,) = client.client_list(client_id=[number])
    assert connection["name"] == keys.connection(IDENTITY)
    assert 10_000 < client.pttl(keys.alive(IDENTITY)) <= 15_000


def test_beats_come_by_their_own_timer(make: Callable[..., Keeper], monkeypatch: pytest.MonkeyPatch) -> None:
    """Beats are due on their grid however long each takes, and however late a busy machine lets one be."""
    beats: list[float] = []
    due: list[float] = []
    wait = Waker.wait

    def noted(waker: Waker, until: float, connection: int | None) -> None:
        due.append(until)
        wait(waker, until, connection)

    def slow() -> WorkerRecord:
        beats.append(time.monotonic())
        time.sleep(0.03)
        return record()

    monkeypatch.setattr(Waker, "wait", noted)
    keeper = make(slow, interval_s=0.1)
    keeper.start()
    wait_until(lambda: len(beats) >= 13)
    # The first two are the name and the registration.
    assert all(at >= when - 0.01 for at, when in zip(beats[2:], due, strict=False))
    steps = [(when - due[0]) / 0.1 for when in due[:11]]
    assert steps == pytest.approx([round(step) for step in steps])
    assert steps == sorted(set(steps))


def test_a_change_is_told_at_once(client: redis.Redis, make: Callable[..., Keeper]) -> None:
    """A status that others should know does not wait for the timer."""
    state = {"status": "online"}
    keeper = make(lambda: record(status=state["status"]), interval_s=60.0)
    keeper.beat_soon()
    keeper.start()
    state["status"] = "draining"
    keeper.beat_soon()
    wait_until(lambda: stored(client)["status"] == "draining")


def test_a_stuck_loop_shows(client: redis.Redis, make: Callable[..., Keeper]) -> None:
    """Beats go on while Celery's loop gives no sign, and say since when."""
    keeper = make()
    keeper.start()
    wait_until(lambda: stored(client)["beat_at"] - stored(client)["loop_at"] > 0.3)

    def says_alive() -> bool:
        keeper.loop_alive()
        told = stored(client)
        return bool(told["beat_at"] - told["loop_at"] < 0.2)

    wait_until(says_alive)


def test_leaving_removes_the_record(client: redis.Redis, make: Callable[..., Keeper]) -> None:
    """A stopped keeper leaves nothing but a line in the history."""
    keeper = make()
    keeper.start()
    keeper.stop()
    assert not keeper.is_alive()
    assert not client.exists(keys.WORKERS, keys.alive(IDENTITY), keys.OWNERS)
    assert Registry(client).history()[0]["departed"] == "left"
    keeper.beat_soon()


def test_a_keeper_that_never_started_stops(make: Callable[..., Keeper]) -> None:
    """Ending a worker that was refused at its start does nothing."""
    make().stop()


def test_a_lost_record_is_written_again(client: redis.Redis, make: Callable[..., Keeper]) -> None:
    """After Redis has forgotten everything the worker is back by its next beat, as old as it was."""
    make().start()
    started_at = stored(client)["started_at"]
    client.flushall()
    wait_until(lambda: stored(client).get("started_at") == started_at)
    wait_until(lambda: client.smembers(keys.OWNERS) == {IDENTITY.encode()})


def test_a_lost_connection_is_replaced_at_once(client: redis.Redis, make: Callable[..., Keeper]) -> None:
    """The keeper notices that its connection is closed without waiting for its timer, and names the new one."""
    keeper = make(interval_s=60.0)
    keeper.start()
    old = lease_of(client)
    client.client_kill_filter(_id=old)
    wait_until(lambda: lease_of(client) not in {old, ""})
    new = lease_of(client)
    (connection,) = client.client_list(client_id=[new])
    assert connection["name"] == keys.connection(IDENTITY)


def test_a_server_that_closes_silent_connections(
    client: redis.Redis, make: Callable[..., Keeper], caplog: pytest.LogCaptureFixture
) -> None:
    """As by its setting ``timeout``: no heartbeat fails, one line in all says what to set, and the worker's connection, which may
    be away for longer than a second on a busy machine, does not stand for its life any more."""
    keeper = make(interval_s=60.0)
    keeper.start()
    assert lease_of(client)

    def named() -> list[str]:
        return [each["id"] for each in client.client_list() if each["name"] == keys.connection(IDENTITY)]

    for _ in range(5):
        beat_at = stored(client)["beat_at"]
        (old,) = wait_until(named)
        client.client_kill_filter(_id=old)
        wait_until(lambda beat_at=beat_at: stored(client)["beat_at"] != beat_at)  # type: ignore[misc]
    assert client.get(keys.alive(IDENTITY)) == b""
    wait_until(lambda: "set its timeout" in caplog.text)
    assert caplog.text.count("set its timeout to 0, or to more than the 60 s between two heartbeats") == 1
    assert "trying again" not in caplog.text
    assert keeper.failures == 0


def test_redis_may_be_restarted(
    client: redis.Redis, make: Callable[..., Keeper], redis_server: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """While Redis is away the keeper goes on, with one line in the log; it is back within seconds of Redis."""
    forgotten: list[str] = []
    keeper = make(interval_s=3600.0, on_forgotten=lambda: forgotten.append("told"))
    keeper.start()
    redis_server.stop()
    wait_until(lambda: "trying again until Redis is back" in caplog.text)
    wait_until(lambda: keeper.failures >= 3)
    redis_server.start()
    wait_until(lambda: forgotten)
    assert stored(client)
    assert caplog.text.count("trying again") == 1
    assert caplog.text.count("registered again") == 1
    assert forgotten == ["told"]


def test_a_worker_may_start_while_redis_is_away(
    client: redis.Redis, make: Callable[..., Keeper], redis_server: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It registers when Redis is there."""
    redis_server.stop()
    make().start()
    assert "not registered yet" in caplog.text
    redis_server.start()
    wait_until(lambda: stored(client).get("started_at"))


def test_a_worker_that_registers_late_takes_over_its_predecessor_s_name(
    client: redis.Redis, make: Callable[..., Keeper], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Redis was away as it started, and is back with the record of the worker that was killed before."""
    Registry(client).register(record(boot="b0"), 15_000, client_id="999999")
    lost: list[str] = []
    keeper = make(interval_s=60.0, on_lost=lost.append)
    with monkeypatch.context() as away:
        away.setattr(keeper._registry, "register", unavailable)
        keeper.start()
    assert "not registered yet" in caplog.text
    keeper.beat_soon()
    wait_until(lambda: stored(client)["boot"] == "b1")
    wait_until(lambda: "took over the name of mac@lab#b0" in caplog.text)
    assert lost == []


def unavailable(*_: Any, **__: Any) -> None:
    raise BrokerUnavailable("Redis is away")


def test_stopping_while_redis_is_away_ends(
    make: Callable[..., Keeper], redis_server: EmbeddedServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that cannot say goodbye ends all the same."""
    keeper = make()
    keeper.start()
    redis_server.stop()
    keeper.stop()
    assert not keeper.is_alive()
    assert "the sweep will remove" in caplog.text


def test_a_live_duplicate_does_not_start(client: redis.Redis, make: Callable[..., Keeper]) -> None:
    """The second worker of a name is refused, and its keeper's thread never runs."""
    make().start()
    second = make(lambda: record(boot="b2"))
    with pytest.raises(DuplicateWorker):
        second.start()
    assert not second.is_alive()
    assert stored(client)["boot"] == "b1"


def test_a_dead_predecessor_is_taken_over(
    client: redis.Redis, make: Callable[..., Keeper], caplog: pytest.LogCaptureFixture
) -> None:
    """A worker that is restarted after a crash has its name within two seconds, and says whose it was."""
    Registry(client).register(record(boot="b0"), 15_000, client_id="999999")
    make().start()
    assert stored(client)["boot"] == "b1"
    assert "took over the name of mac@lab#b0" in caplog.text


def test_who_slept_too_long_gives_up_its_work_first(client: redis.Redis, make: Callable[..., Keeper]) -> None:
    """A worker that was swept registers again only after its owner has let go of what it ran."""
    lost: list[str] = []
    told, free = threading.Event(), threading.Event()

    def on_lost(how: str) -> None:
        lost.append(how)
        told.set()
        free.wait(60)

    make(on_lost=on_lost).start()
    lease = lease_of(client)
    Registry(client).declare_dead("mac@lab", "b1", lease=lease, reason="silent")
    assert told.wait(60)
    assert not client.exists(keys.WORKERS, keys.alive(IDENTITY))
    free.set()
    wait_until(lambda: client.exists(keys.alive(IDENTITY)))
    assert lost == ["swept"]
    assert stored(client)["boot"] == "b1"
    assert not client.exists(keys.swept(IDENTITY))


def test_who_is_superseded_never_beats_again(client: redis.Redis, make: Callable[..., Keeper]) -> None:
    """Another boot has the name: the keeper says so once, ends, and takes nothing of its successor's."""
    lost: list[str] = []
    keeper = make(on_lost=lost.append)
    keeper.start()
    client.hset(keys.WORKERS, "mac@lab", json.dumps({"v": 1, "node": "mac@lab", "boot": "b2"}))
    keeper.join(60)
    assert lost == ["superseded"]
    assert stored(client)["boot"] == "b2"


def test_who_slept_and_lost_its_name_is_superseded(client: redis.Redis, make: Callable[..., Keeper]) -> None:
    """Swept, and a new worker of the same name is alive: no way back."""
    lost: list[str] = []
    keeper = make(on_lost=lost.append, interval_s=60.0)
    keeper.start()
    lease = lease_of(client)
    Registry(client).declare_dead("mac@lab", "b1", lease=lease, reason="silent")
    make(lambda: record(boot="b2")).start()
    keeper.beat_soon()
    keeper.join(60)
    assert lost == ["swept", "superseded"]
    assert stored(client)["boot"] == "b2"


def test_cancel_marks_are_seen(client: redis.Redis, make: Callable[..., Keeper]) -> None:
    """Of the requests that run, those with a mark are reported; nothing is asked when nothing runs."""
    running: list[str] = []
    cancelled: list[set[str]] = []
    journal = Journal(client)
    journal.mark_cancelled("t2")
    make(after_beat=[CancelWatch(journal, lambda: list(running), cancelled.append).look]).start()
    running[:] = ["t1", "t2", "t3"]
    wait_until(lambda: cancelled)
    assert cancelled[0] == {"t2"}


def test_a_description_that_fails_is_survived(
    client: redis.Redis, make: Callable[..., Keeper], caplog: pytest.LogCaptureFixture
) -> None:
    """An error in the worker's own figures is logged, and beats go on."""
    broken = [False]

    def describe() -> WorkerRecord:
        if broken[0]:
            raise RuntimeError("no figures today")
        return record()

    make(describe).start()
    broken[0] = True
    wait_until(lambda: "no figures today" in caplog.text)
    broken[0] = False
    beat_at = stored(client)["beat_at"]
    wait_until(lambda: stored(client)["beat_at"] > beat_at)


def test_the_cost_of_beats_is_in_the_record(client: redis.Redis, make: Callable[..., Keeper]) -> None:
    """Whoever looks can see what the heartbeat takes."""
    keeper = make()
    assert keeper.costs.as_ms() == {}
    keeper.start()
    wait_until(lambda: stored(client)["metrics"]["beat_ms"].get("count", 0) >= 3)
    cost = stored(client)["metrics"]["beat_ms"]
    assert 0 < cost["p50"] <= cost["p99"] <= cost["max"]


def test_a_missing_sweep_is_warned_of(
    client: redis.Redis, make: Callable[..., Keeper], caplog: pytest.LogCaptureFixture
) -> None:
    """A worker says once that nobody sweeps, not while somebody does, and again when that ends."""
    caplog.set_level(logging.WARNING)
    keeper = make(after_beat=[SweepWatch(no_sweep_s=0.3).look])
    keeper.start()
    wait_until(lambda: "no sweep is running" in caplog.text)
    caplog.clear()
    beats = keeper.costs.as_ms()["count"]
    wait_until(lambda: keeper.costs.as_ms()["count"] > beats + 10)
    assert "no sweep" not in caplog.text
    client.hset(keys.SWEEP, "at", client.time()[0] + 3600)
    beats = keeper.costs.as_ms()["count"]
    wait_until(lambda: keeper.costs.as_ms()["count"] > beats + 3)
    client.hset(keys.SWEEP, "at", 1)
    wait_until(lambda: "no sweep is running" in caplog.text)


def test_the_waker_never_blocks() -> None:
    """However often a keeper is woken before it looks, nobody waits for it."""
    waker = Waker()
    for _ in range(100_000):
        waker.wake()
    waker.wait(time.monotonic() + 60, None)
    waker.close()
    waker.close()
    waker.wake()

"""The sweep on a real server: who is dead, what becomes of their work, and how two sweeps share it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tasks.broker.queues.ledger import RESENT_MAX, Ledger
from tasks.errors import BrokerUnavailable, EngineFailed, GenerationError
from tasks.journal.writer import Journal
from tasks.messages.journal import End, Error
from tasks.registry import Grace, Registry
from tasks.registry.values import text
from tasks.server import keys
from tasks.server.connection import connect
from tasks.sweep import election, results, start_sweep
from tasks.sweep.ends import Ends
from tasks.sweep.lost import LostRequests
from tasks.sweep.returns import Returns
from tasks.sweep.sweep import Sweep
from tests.fleet import NO_GRACE, Ghost, fetch_all, hold, message, record
from tests.support import ROOT, wait_until
from worker_config.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import redis
    from celery import Celery

    from tasks.demo.embedded import EmbeddedServer

QUEUE = "tier-3-7B"


class NoResults:
    """A result backend in which nothing is final, unless a test says so."""

    def __init__(self) -> None:
        self.entries: dict[str, End | Error] = {}
        self.failed: dict[str, Exception] = {}
        self.revoked: dict[str, str] = {}

    def final_entry(self, task_id: str) -> End | Error | None:
        """What the test says."""
        return self.entries.get(task_id)

    def fail(self, task_id: str, error: Exception) -> None:
        """Remember it."""
        self.failed[task_id] = error

    def revoke(self, task_id: str, message: str) -> None:
        """Remember it."""
        self.revoked[task_id] = message


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A client that answers in bytes."""
    with closing(connect(redis_url)) as client:
        yield client


@pytest.fixture
def no_results() -> NoResults:
    """The result backend of the sweeps below."""
    return NoResults()


@pytest.fixture
def make(redis_url: str, no_results: NoResults) -> Iterator[Callable[..., Sweep]]:
    """Makes sweeps, each with a client of its own; ends them after the test."""
    made: list[tuple[Sweep, redis.Redis]] = []

    def make(
        dead_after_s: float = 0.5, name: str = "", grace: Grace = NO_GRACE, *, looks_always: bool = False
    ) -> Sweep:
        client = connect(redis_url)
        settings = Settings(sweep_s=0.05, dead_after_s=dead_after_s)
        ends = Ends(Journal(client), no_results)
        lost = LostRequests(Ledger(client, time.monotonic, duty=1e9), ends)
        options: dict[str, Any] = {"lost": lost, "chores_s": 0.0} if looks_always else {}
        sweep = Sweep(client, ends, settings, name, grace=grace, **options)
        made.append((sweep, client))
        return sweep

    yield make
    for sweep, client in made:
        sweep.stop()
        client.close()


def nodes(client: redis.Redis) -> set[str]:
    """The names in the registry."""
    return {text(node) for node in client.hkeys(keys.WORKERS)}


def test_a_killed_worker_is_buried_and_its_work_returned(
    client: redis.Redis, make: Callable[..., Sweep], caplog: pytest.LogCaptureFixture
) -> None:
    """The vanished connection is enough; the living one next to it is not touched."""
    caplog.set_level(logging.INFO)
    with Ghost(client, "dead@lab") as dead, Ghost(client, "living@lab") as living:
        hold(client, dead.identity, [message("t1"), message("t2")])
        hold(client, living.identity, [message("t3")])
        make(dead_after_s=3600.0).start()
        wait_until(lambda: client.hget(keys.SWEEP, "at"), about="a first sweep")
        dead.die()
        wait_until(lambda: client.llen(QUEUE) == 2, about="the return of two requests")
        assert fetch_all(client, QUEUE) == ["t1", "t2"]
        wait_until(lambda: client.smembers(keys.OWNERS) == {b"living@lab#b1"}, about="the dead one to be looked after")
        assert nodes(client) == {"living@lab"}
        assert client.hlen(keys.unacked(living.identity)) == 1
        (departed,) = Registry(client).history()
        assert (departed["node"], departed["departed"]) == ("dead@lab", "dead")
        assert not client.exists(keys.alive(dead.identity))
        assert "dead@lab#b1 is dead: its connection has been gone" in caplog.text
        wait_until(lambda: "gave back 2 requests of dead@lab#b1: t1, t2" in caplog.text)


def test_a_silent_worker_is_dead_and_told_so(client: redis.Redis, make: Callable[..., Sweep]) -> None:
    """A worker that is stopped keeps its connection; once it wakes up it learns that its work is others'."""
    with Ghost(client, lease_ms=300) as ghost:
        hold(client, ghost.identity, [message("t1")])
        make().start()
        wait_until(lambda: client.llen(QUEUE) == 1, about="the return of the request")
        assert nodes(client) == set()
        assert ghost.beat() == "swept"
        assert nodes(client) == set()


def test_a_worker_of_a_newer_version_is_swept_too(client: redis.Redis, make: Callable[..., Sweep]) -> None:
    """The sweep needs three fields of a record, whatever else a later version writes."""
    client.hset(keys.WORKERS, "new@lab", json.dumps({"v": 99, "boot": "b9", "beat_at": 5.0, "engines": "many"}))
    client.hset(keys.WORKERS, "garbage@lab", b"\xff")
    client.sadd(keys.OWNERS, "new@lab#b9")
    hold(client, "new@lab#b9", [message("t1")])
    make().round()
    assert nodes(client) == {"garbage@lab"}
    assert fetch_all(client, QUEUE) == ["t1"]


def test_the_superseded_and_the_gone_owe_their_work_too(client: redis.Redis, make: Callable[..., Sweep]) -> None:
    """Whoever may hold messages and has neither record nor lease is swept, however it went."""
    with Ghost(client) as ghost:
        hold(client, ghost.identity, [message("t1")])
        ghost.die()
        Registry(client).register(record(boot="b2"), 15_000)
        client.sadd(keys.OWNERS, "forgotten@lab#b7")
        hold(client, "forgotten@lab#b7", [message("t2")])
        make().round()
        assert sorted(fetch_all(client, QUEUE)) == ["t1", "t2"]
        assert client.smembers(keys.OWNERS) == {b"mac@lab#b2"}


def test_a_lease_without_a_record_is_alive(client: redis.Redis, make: Callable[..., Sweep]) -> None:
    """A worker whose record somebody deleted is about to register again; its work is its own."""
    with Ghost(client) as ghost:
        hold(client, ghost.identity, [message("t1")])
        client.delete(keys.WORKERS)
        make().round()
        assert not client.exists(QUEUE)
        assert ghost.beat() == "registered"


def test_two_sweeps_restore_each_request_once(client: redis.Redis, redis_url: str, no_results: NoResults) -> None:
    """Even without the lock between them, no request comes back twice."""
    ids = [f"t{number:03}" for number in range(120)]
    for name in ("a", "b", "c"):
        client.sadd(keys.OWNERS, f"{name}@lab#b1")
        hold(client, f"{name}@lab#b1", [message(f"{name}-{id_}") for id_ in ids])
    start = threading.Barrier(2)

    def work() -> None:
        with closing(connect(redis_url)) as own:
            returns = Returns(own, Ends(Journal(own), no_results))
            start.wait()
            returns.return_work(set())

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(fetch_all(client, QUEUE)) == sorted(f"{name}-{id_}" for name in "abc" for id_ in ids)


def test_one_of_several_beats_sweeps(
    client: redis.Redis, make: Callable[..., Sweep], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock elects one; when it stops, another takes over at once; when it dies, once the lock has ended."""
    monkeypatch.setattr(election, "LOCK_AT_LEAST_S", 60.0)  # on a busy machine this process may stand still for seconds
    first, second = make(name="first"), make(name="second")
    first.start()
    wait_until(lambda: client.hget(keys.SWEEP, "by") == b"first")
    second.round()
    assert client.get(keys.SWEEP_LOCK) == b"first"
    second.start()
    first.stop()
    wait_until(lambda: client.hget(keys.SWEEP, "by") == b"second")
    assert 0 < client.pttl(keys.SWEEP_LOCK) <= 60_000


def test_every_round_is_signed_by_redis_clock(client: redis.Redis, make: Callable[..., Sweep]) -> None:
    """Workers and ``fleet`` can tell that a sweep runs."""
    assert Registry(client).last_sweep() == (None, "")
    make(name="beat:1").round()
    at, by = Registry(client).last_sweep()
    assert at is not None
    assert abs(at - client.time()[0]) < 60
    assert by == "beat:1"


def test_nobody_is_dead_after_a_restart_of_redis(
    client: redis.Redis,
    make: Callable[..., Sweep],
    redis_server: EmbeddedServer,
) -> None:
    """While everyone reconnects the sweep declares nobody dead; those that stay away are dead after the grace."""
    client.config_set("appendonly", "no")
    sweep = make(grace=Grace(restarted_s=12.0, reconnected_s=0.0))
    sweep.start()
    wait_until(lambda: client.hget(keys.SWEEP, "at"), about="a first sweep")
    redis_server.restart()
    back_at = time.monotonic()
    # As append-only persistence brings them back: records are there, leases are over, connections are gone.
    for node in ("back@lab", "away@lab"):
        client.hset(keys.WORKERS, node, json.dumps({"v": 1, "node": node, "boot": "b1", "beat_at": 5.0}))
        client.sadd(keys.OWNERS, f"{node}#b1")
        hold(client, f"{node}#b1", [message(node)])
    wait_until(lambda: client.hget(keys.SWEEP, "at"), about="a sweep after the restart")
    assert nodes(client) == {"back@lab", "away@lab"}
    with Ghost(client, "back@lab"):
        wait_until(lambda: nodes(client) == {"back@lab"}, about="the end of the grace")
        assert time.monotonic() - back_at > 2.0
        wait_until(lambda: fetch_all(client, QUEUE) == ["away@lab"])


def test_a_reset_of_its_own_connection_makes_it_doubt(client: redis.Redis, make: Callable[..., Sweep]) -> None:
    """A sweep that lost its connection cannot tell whose fault it was, so it believes no absence for a while."""
    sweep = make(grace=Grace(restarted_s=0.0, reconnected_s=3600.0))
    sweep.start()
    wait_until(lambda: client.hget(keys.SWEEP, "at"), about="a first sweep")
    assert sweep.watch.believes_absences(time.monotonic())
    name = keys.connection(f"sweep@{sweep.by}")
    (own,) = (connection["id"] for connection in client.client_list() if connection["name"] == name)
    client.client_kill_filter(_id=own)
    wait_until(lambda: not sweep.watch.believes_absences(time.monotonic()), about="doubt")
    assert sweep.watch.believes_leases(time.monotonic())


def test_a_broken_round_does_not_end_the_sweep(
    client: redis.Redis, make: Callable[..., Sweep], caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever one round meets, the next one comes."""
    client.set(keys.WORKERS, "not a hash")
    make().start()
    wait_until(lambda: "a round failed" in caplog.text, about="a failed round")
    client.delete(keys.WORKERS)
    wait_until(lambda: client.hget(keys.SWEEP, "at"), about="a round that works")


def test_a_journal_whose_result_is_final_is_ended(
    client: redis.Redis, make: Callable[..., Sweep], no_results: NoResults
) -> None:
    """A request that was revoked while its worker died ends for its readers too."""
    client.sadd(keys.OWNERS, "dead@lab#b1")
    Journal(client).claim("t1", "dead@lab#b1")
    hold(client, "dead@lab#b1", [message("t1"), message("t2")])
    no_results.entries["t1"] = End(attempt=0, index=0, finish_reason="cancelled", usage={})
    make().round()
    end = Journal(client).read("t1")[-1]
    assert isinstance(end, End)
    assert end.finish_reason == "cancelled"
    assert Journal(client).read("t2") == []
    assert sorted(fetch_all(client, QUEUE)) == ["t1", "t2"]


def overdue(client: redis.Redis, task_id: str, resent: int = 0, **values: Any) -> None:
    """A ledger entry whose message is nowhere."""
    entry = {"at": 5.0, "queue": QUEUE, "message": json.dumps(message(task_id)), "resent": resent, **values}
    client.hset(keys.LEDGER, task_id, json.dumps(entry))


def test_a_lost_request_is_sent_again(client: redis.Redis, make: Callable[..., Sweep]) -> None:
    """A message that vanished between BRPOP and the note of who has it is back in its queue after two looks."""
    overdue(client, "t1")
    sweep = make(looks_always=True)
    sweep.round()
    assert not client.exists(QUEUE)
    sweep.round()
    assert fetch_all(client, QUEUE) == ["t1"]
    sweep.round()
    assert fetch_all(client, QUEUE) == ["t1"]


def test_a_request_that_is_lost_again_is_sent_as_a_message(client: redis.Redis, make: Callable[..., Sweep]) -> None:
    """A worker of the first version takes it then; it drops the reference that each first delivery is."""
    overdue(client, "t1")
    sent = []
    sweep = make(looks_always=True)
    for _ in range(3):
        sweep.round()
        sweep.round()
        sent.append(client.rpop(QUEUE))
        entry = json.loads(client.hget(keys.LEDGER, "t1") or b"")
        client.hset(keys.LEDGER, "t1", json.dumps({**entry, "at": 5.0}))
    assert sent == [b"=t1", entry["message"].encode(), entry["message"].encode()]
    assert entry["resent"] == 3


def test_a_lost_request_with_a_final_result_is_ended(
    client: redis.Redis, make: Callable[..., Sweep], no_results: NoResults
) -> None:
    """What Celery has ended by itself is not run, and its readers do not wait."""
    overdue(client, "t1")
    no_results.entries["t1"] = Error(attempt=0, code="expired", message="too late")
    sweep = make(looks_always=True)
    sweep.round()
    sweep.round()
    assert not client.exists(QUEUE, keys.LEDGER)
    error = Journal(client).read("t1")[-1]
    assert isinstance(error, Error)
    assert error.code == "expired"


def test_a_request_that_is_lost_every_time_is_given_up(
    client: redis.Redis, make: Callable[..., Sweep], no_results: NoResults
) -> None:
    """After five resends it ends with an error, for its readers and for ``get()``."""
    overdue(client, "t1", resent=RESENT_MAX)
    sweep = make(looks_always=True)
    sweep.round()
    sweep.round()
    assert not client.exists(QUEUE, keys.LEDGER)
    error = Journal(client).read("t1")[-1]
    assert isinstance(error, Error)
    assert "lost 5 times" in error.message
    assert isinstance(no_results.failed["t1"], GenerationError)


def test_a_purge_that_was_interrupted_is_finished(
    client: redis.Redis, make: Callable[..., Sweep], no_results: NoResults
) -> None:
    """A request that was purged, and has no end yet, gets one; it is not sent again."""
    overdue(client, "t1", purged=True)
    sweep = make(looks_always=True)
    sweep.round()
    sweep.round()
    assert not client.exists(QUEUE, keys.LEDGER)
    end = Journal(client).read("t1")[-1]
    assert isinstance(end, End)
    assert end.finish_reason == "cancelled"
    assert no_results.revoked.keys() == {"t1"}


@pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")
def test_celery_results_become_ends(producer_app: Celery) -> None:
    """Revoked and failed results end journals as their readers expect; open and successful ones do not."""
    backend, found = producer_app.backend, results.Results(producer_app)
    backend.mark_as_done("done", {"text": "x"})
    backend.mark_as_revoked("revoked", "terminated")
    backend.mark_as_failure("ours", EngineFailed("three times"))
    backend.mark_as_failure("theirs", ValueError("bad"))
    assert found.final_entry("unknown") is None
    assert found.final_entry("done") is None
    revoked, ours, theirs = (found.final_entry(task_id) for task_id in ("revoked", "ours", "theirs"))
    assert isinstance(revoked, End)
    assert revoked.finish_reason == "cancelled"
    assert isinstance(ours, Error)
    assert (ours.code, ours.message, ours.retryable) == ("engine_failed", "three times", True)
    assert isinstance(theirs, Error)
    assert (theirs.code, theirs.message) == ("internal_error", "ValueError: bad")
    found.fail("new", GenerationError("lost"))
    with pytest.raises(GenerationError, match="lost"):
        producer_app.AsyncResult("new").get()


def test_beats_sweep_starts_with_the_settings(producer_app: Celery, client: redis.Redis) -> None:
    """What beat starts is a sweep of the app's own Redis."""
    sweep = start_sweep(producer_app)
    try:
        wait_until(lambda: client.hget(keys.SWEEP, "by") == sweep.by.encode(), about="a sweep")
        assert sweep.daemon
    finally:
        sweep.stop()


def test_a_sweep_that_cannot_reach_redis_says_so(no_results: NoResults) -> None:
    """A round without Redis is one clear error."""
    with closing(connect("redis://127.0.0.1:1/0")) as away:
        sweep = Sweep(away, Ends(Journal(away), no_results), Settings())
        with pytest.raises(BrokerUnavailable):
            sweep.round()
        sweep.stop()


def test_the_real_beat_sweeps(client: redis.Redis, redis_url: str, tmp_path: Path) -> None:
    """``celery -A tasks beat`` has the sweep in its process, writes no schedule anywhere, and ends when it is told to."""
    log = tmp_path / "beat.log"
    with log.open("wb") as output:
        beat = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "tasks", "beat", "-s", str(tmp_path / "no folder" / "schedule")],
            cwd=ROOT,
            env={**os.environ, "REDIS_URL": redis_url},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until(lambda: client.hget(keys.SWEEP, "at"), timeout_s=120, about="a sweep of the real beat")
        beat.terminate()
        assert beat.wait(60) == 0, log.read_text()
    finally:
        if beat.poll() is None:
            beat.kill()
            beat.wait()

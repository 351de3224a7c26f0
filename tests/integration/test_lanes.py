"""The lanes of workers, in a real server: where a request is put, who takes it and when, and what knows of it."""

from __future__ import annotations

import json
import time
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery

from benchmarks.simulated_affinity import TURNS, SimulatedWorker, Simulation
from tasks.broker.channel.holding import OPTION, Holding
from tasks.broker.inventory.inventory import open_requests
from tasks.broker.inventory.purge import purge_queue
from tasks.broker.inventory.search import is_mentioned
from tasks.broker.inventory.withdraw import withdraw
from tasks.broker.message.prefix import prefixes_of
from tasks.broker.queues.lanes import FleetLanes, leave
from tasks.broker.queues.ledger import Ledger
from tasks.broker.queues.limits import QueueLimit, position, write_limits
from tasks.broker.queues.queues import depths, lane_of, list_of, lists_of, more_urgent_in
from tasks.errors import QueueFull
from tasks.server import keys
from tasks.server.connection import connect
from tasks.worker.queues.lanes import Lanes
from tests.fleet import hold, message
from tests.integration.test_transport import Fetcher, Room, queued
from worker_config.celeryconfig import celery_options, settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

QUEUE = "tier-under-3B"
MODEL = "fake:1"
A, B = "a@lab", "b@lab"
SLOTS = 4
#: Longer than this test runs.
LONG_MS = 60_000


class Fleet:
    """Workers that exist by what they say of their lanes, and a producer."""

    def __init__(self, app: Celery, client: redis.Redis) -> None:
        self.app = app
        self.client = client
        self.lanes = {node: FleetLanes(client, f"{node}#b1", lambda: {QUEUE: SLOTS}) for node in (A, B)}
        for lanes in self.lanes.values():
            lanes.serve()

    def send(self, task_id: str, prompt: str, **options: Any) -> None:
        """Send a request."""
        values = {"prompt": prompt, "model": MODEL}
        self.app.send_task("tasks.generate", kwargs=values, task_id=task_id, queue=QUEUE, ignore_result=True, **options)

    def warm(self, node: str, prompt: str, wait_ms: int = LONG_MS) -> None:
        """A worker has computed this."""
        prefixes = prefixes_of({"prompt": prompt, "model": MODEL}, "")
        self.lanes[node].note_warm({prefix.digest: wait_ms for prefix in prefixes})

    def fill(self, node: str, count: int = SLOTS) -> None:
        """A worker holds so many requests."""
        hold(self.client, f"{node}#b1", [message(f"{node}-{n}", QUEUE) for n in range(count)])

    def place(self, task_id: str) -> str:
        """The list that a request waits in."""
        entry: Any = self.client.hget(keys.LEDGER, task_id)
        return str(json.loads(entry)["queue"])


@pytest.fixture(autouse=True)
def believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers are believed to have lanes for as long as any test runs."""
    monkeypatch.setattr("tasks.broker.queues.lanes.SILENT_S", 600.0)


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A client that answers in bytes."""
    with closing(connect(redis_url)) as client:
        yield client


@pytest.fixture
def fleet(producer_app: Celery, client: redis.Redis) -> Fleet:
    """Two workers, with nothing to do."""
    return Fleet(producer_app, client)


@pytest.fixture
def without_affinity(producer_app: Celery) -> Iterator[Celery]:
    """A producer with the setting off."""
    with Celery("without", set_as_current=False) as app:
        app.config_from_object(celery_options(replace(settings_of(producer_app), affinity=False)))
        yield app


def lane(node: str, priority: int = 0) -> str:
    return lane_of(QUEUE, priority, node)


def shared(name: str) -> str:
    """A beginning of some length."""
    return f"{name}: " + f"what all prompts about {name} begin with. " * 40


class TestPlace:
    def test_where_the_prompt_is_warm(self, fleet: Fleet) -> None:
        """A request goes to the worker that computed the longest known beginning of its prompt, each at its priority."""
        fleet.warm(A, shared("cats"))
        fleet.warm(B, shared("cats") + "and more. " * 400)
        fleet.send("cats", shared("cats") + "short")
        fleet.send("more", shared("cats") + "and more. " * 400 + "end", priority=5)
        assert fleet.place("cats") in (lane(A), lane(B))  # the shorter beginning is a part of both
        assert fleet.place("more") == lane(B, 5)

    def test_warm_nowhere(self, fleet: Fleet) -> None:
        """Requests that begin alike meet at one worker, and those that do not are spread."""
        for n in range(12):
            for end in ("x", "y"):
                fleet.send(f"{n}{end}", shared(f"kind {n}") + end)
                fleet.client.delete(lane(A), lane(B))  # as if they were taken, and done
        places = [fleet.place(f"{n}x") for n in range(12)]
        assert places == [fleet.place(f"{n}y") for n in range(12)]
        assert set(places) == {lane(A), lane(B)}

    def test_no_more_than_the_others(self, fleet: Fleet) -> None:
        """However many requests begin alike, one worker gets little more than its share of them, as long as others have room."""
        for n in range(6):
            fleet.send(str(n), shared("all") + str(n))
        assert {fleet.place(str(n)) for n in range(6)} == {lane(A), lane(B), list_of(QUEUE, 0)}

    def test_whoever_is_full(self, fleet: Fleet) -> None:
        """A warm worker without room is waited for; one that would only be the hash's choice is not."""
        fleet.warm(A, shared("cats"))
        fleet.fill(A)
        fleet.send("warm", shared("cats"))
        fleet.fill(B)
        fleet.send("cold", shared("dogs"))
        assert fleet.place("warm") == lane(A)
        assert fleet.place("cold") == QUEUE

    @pytest.mark.parametrize("why", ["short", "alone", "batch", "off", "silent", "chain"])
    def test_whoever_is_free(self, fleet: Fleet, without_affinity: Celery, why: str) -> None:
        """What has nothing to gain waits in the queue's own list: short prompts, a lone worker, batch work that is warm nowhere,
        with the setting off, where no worker says that it has lanes, and what follows a link of a chain.
        """
        if why == "alone":
            leave(fleet.client, B)
        if why == "silent":
            fleet.client.delete(keys.AFFINITY_WORKERS)
        if why == "off":
            fleet = Fleet(without_affinity, fleet.client)
        if why == "chain":
            fleet.app.send_task(
                "tasks.generate", args=["before"], kwargs={"prompt": shared("x")}, task_id="t", queue=QUEUE
            )
        else:
            fleet.send("t", "Hello" if why == "short" else shared("x"), priority=9 if why == "batch" else 0)
        assert fleet.place("t") == list_of(QUEUE, 9 if why == "batch" else 0)

    def test_a_user_of_an_earlier_version(self, fleet: Fleet) -> None:
        """A producer whose rules in Redis name no lanes sends as before."""
        fleet.warm(A, shared("cats"))
        rules = ("resetkeys", "~tier-*", "~_kombu*", "~celery-mlx:l*", "~celery-mlx:as*", "~celery-mlx:r*")
        try:
            fleet.client.execute_command("ACL", "SETUSER", "default", *rules)  # type: ignore[no-untyped-call]
            fleet.send("t", shared("cats"))
        finally:
            fleet.client.execute_command("ACL", "SETUSER", "default", "~*")  # type: ignore[no-untyped-call]
        assert fleet.place("t") == QUEUE


class TestTaking:
    @pytest.fixture
    def lanes(self, fleet: Fleet) -> Lanes:
        """Those of B, which looks when it is told to."""
        return Lanes(B, fleet.lanes[B], lambda: True)

    @pytest.fixture
    def fetcher(self, producer_app: Celery, lanes: Lanes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fetcher]:
        """B's channel, without the worker."""
        holding = Holding(room=Room(QUEUE), lanes=lanes)
        options = {"unacked_key": "held", "unacked_index_key": "held-index", OPTION: holding}
        with producer_app.connection_for_read(transport_options=options) as connection:
            yield Fetcher(connection.channel(), monkeypatch)

    def test_its_own_at_once(self, fleet: Fleet, fetcher: Fetcher, lanes: Lanes) -> None:
        """What comes into the worker's lane is taken at once, and counts as a hit."""
        fleet.warm(B, shared("cats"))
        fleet.send("t", shared("cats"))
        assert fetcher.fetch().headers["id"] == "t"
        assert fetcher.messages[-1].delivery_info["routing_key"] == QUEUE
        assert lanes.counts()["hits"] == 1

    def test_another_s_in_time(self, fleet: Fleet, fetcher: Fetcher, lanes: Lanes) -> None:
        """What waits for another worker is left to it for as long as it is worth, and then taken."""
        fleet.warm(A, shared("cats"))
        fleet.send("worth", shared("cats"))
        assert 0 < lanes.look() <= 0.25
        fetcher.fetch_nothing()
        fleet.warm(A, shared("dogs"), wait_ms=0)
        fleet.client.delete(lane(A))
        fleet.send("worthless", shared("dogs"))
        lanes.look()
        assert fetcher.fetch().headers["id"] == "worthless"
        assert lanes.counts() == {"hits": 0, "steals": 1, "waiting": 0}

    def test_one_at_a_time(self, fleet: Fleet, fetcher: Fetcher, lanes: Lanes) -> None:
        """After one request of another's lane the next one is looked at first: its time may not have come."""
        fleet.warm(A, shared("cats"), wait_ms=0)
        fleet.send("first", shared("cats"))
        fleet.warm(A, shared("cats"))
        fleet.send("second", shared("cats"))
        lanes.look()
        assert fetcher.fetch().headers["id"] == "first"
        fetcher.fetch_nothing()
        lanes.look()
        fetcher.fetch_nothing()

    def test_a_worker_that_is_gone(self, fleet: Fleet, fetcher: Fetcher, lanes: Lanes) -> None:
        """The lane of a worker that drains, or was swept, is everybody's at once."""
        fleet.warm(A, shared("cats"))
        fleet.send("t", shared("cats"))
        leave(fleet.client, A)
        lanes.look()
        assert fetcher.fetch().headers["id"] == "t"

    def test_the_longest_waiting_first(self, fleet: Fleet, fetcher: Fetcher, lanes: Lanes) -> None:
        """Between its lane and the queue's own list a worker takes what has waited longer, so neither starves."""
        fleet.warm(B, shared("cats"))
        for n in range(2):
            for name, prompt in (("any", "Hello"), ("own", shared("cats"))):
                fleet.send(f"{name} {n}", prompt)
                time.sleep(0.002)  # waits are compared in whole ms
        lanes.look()
        taken = []
        for _ in range(4):
            taken.append(fetcher.fetch().headers["id"])
            lanes.look()
        assert taken == ["any 0", "own 0", "any 1", "own 1"]

    def test_without_lanes_of_its_own(self, fleet: Fleet) -> None:
        """A worker with the setting off gets nothing into a lane, and still empties those of workers that are gone."""
        fleet.warm(A, shared("cats"))
        fleet.send("t", shared("cats"))
        for node in (A, B):
            leave(fleet.client, node)
        off = Lanes(B, fleet.lanes[B], lambda: True, has_own=False)
        off.look()
        assert not fleet.client.hexists(keys.AFFINITY_WORKERS, B)
        assert off.beside(QUEUE, 0) == ([lane(A)], [])


class TestKnowing:
    @pytest.fixture
    def waiting(self, fleet: Fleet) -> Fleet:
        """Two requests in A's lane."""
        fleet.warm(A, shared("cats"))
        for n in range(2):
            fleet.send(f"t{n}", shared("cats"))
        assert fleet.place("t1") == lane(A)
        return fleet

    def test_what_counts_and_shows_requests(self, waiting: Fleet) -> None:
        """Depth, bound, position, the list of requests, preemption and the search for an id know of lanes."""
        client = waiting.client
        assert [depth.depth for depth in depths(client, [QUEUE])] == [2]
        found = position(client, "t1")
        assert found is not None
        assert found.ahead == 1
        assert [(request.place, request.model, request.queue) for request in open_requests(client)] == [
            ("waiting", MODEL, QUEUE)
        ] * 2
        assert more_urgent_in(client, [QUEUE], 9, A) == {QUEUE: 2}
        assert more_urgent_in(client, [QUEUE], 9, B) == {QUEUE: 0}
        assert is_mentioned(client, "t1", [QUEUE])
        write_limits(client, {QUEUE: QueueLimit(2, 1.0)})
        with pytest.raises(QueueFull, match="2 requests wait in"):
            waiting.send("t2", shared("cats"))

    def test_behind_what_is_more_urgent(self, waiting: Fleet) -> None:
        """The position in a lane counts what is more urgent in the queue."""
        waiting.warm(A, shared("dogs"))
        waiting.send("later", shared("dogs"), priority=5)
        waiting.send("urgent", "Hello")
        found = position(waiting.client, "later")
        assert found is not None
        assert found.ahead == 1

    def test_a_purge(self, waiting: Fleet, producer_app: Celery) -> None:
        """A purge empties lanes, too."""
        assert purge_queue(waiting.client, QUEUE, producer_app) == 2
        assert not waiting.client.exists(lane(A))

    def test_a_withdrawal(self, waiting: Fleet, producer_app: Celery) -> None:
        """A request that is taken back is out of the lane."""
        withdraw(producer_app, ["t0"])
        assert queued(waiting.client, lane(A)) == ["t1"]

    def test_what_is_lost(self, waiting: Fleet) -> None:
        """A request that was lost on its way from a lane to its worker is sent again, to all workers."""
        waiting.client.delete(lane(A))
        ledger = Ledger(waiting.client, lambda: 0.0, grace_s=-1)
        assert ledger.lost() == []
        (lost, _) = ledger.lost()
        assert ledger.resend(lost)
        assert waiting.place(lost.task_id) == QUEUE
        assert queued(waiting.client, QUEUE) == [lost.task_id]


def test_the_simulation(client: redis.Redis) -> None:
    """Simulated workers answer every turn of every conversation, and most later turns are warm."""
    workers = [SimulatedWorker(client, number, 1.0) for number in range(2)]
    run = Simulation(client, workers, per_s=40.0, lanes=True)
    run.run(0.2)
    assert len(run.hits) % TURNS == 0
    assert sum(run.hits) > len(run.hits) / 2
    assert not client.exists(keys.LEDGER, *lists_of(QUEUE), *(lane_of(QUEUE, 0, worker.node) for worker in workers))

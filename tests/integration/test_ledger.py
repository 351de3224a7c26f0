"""Messages that were lost between a queue and a worker are missed, and sent again."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tasks.broker.queues import ledger as ledgers
from tasks.broker.queues.ledger import Ledger, unattended
from tasks.broker.queues.references import reference
from tasks.journal.writer import Journal
from tasks.server import keys
from tasks.server.connection import connect
from tests.fleet import Ghost, fetch_all, hold, message

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

QUEUE = "tier-3-7B"


class Clock:
    """Monotonic seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A client that answers in bytes."""
    with closing(connect(redis_url)) as client:
        yield client


@pytest.fixture
def clock() -> Clock:
    """The ledger's clock."""
    return Clock()


@pytest.fixture
def ledger(client: redis.Redis, clock: Clock) -> Ledger:
    """A ledger that is looked through as often as the test likes."""
    return Ledger(client, clock)


def submit(client: redis.Redis, task_id: str, age_s: float = 60.0, *, queued: bool = False, **values: Any) -> str:
    """A ledger entry of this age, with its message in the queue or lost. The entry as it was written."""
    raw = json.dumps(message(task_id))
    seconds, _ = client.time()
    entry = json.dumps({"at": seconds - age_s, "queue": QUEUE, "message": raw, **values})
    client.hset(keys.LEDGER, task_id, entry)
    if queued:
        client.lpush(QUEUE, raw)
    return raw


def lost(ledger: Ledger, clock: Clock) -> list[str]:
    """Who is lost after two looks; the next two looks may be taken at once."""
    ledger.lost()
    clock.now += 100
    found = [finding.task_id for finding in ledger.lost()]
    clock.now += 100
    return found


def test_a_message_that_is_nowhere_is_lost(client: redis.Redis, ledger: Ledger, clock: Clock) -> None:
    """Overdue, in no queue, with no worker: lost at the second look, never at the first."""
    submit(client, "t1")
    assert ledger.lost() == []
    clock.now += 100
    assert [finding.task_id for finding in ledger.lost()] == ["t1"]


def test_a_young_entry_is_left_alone(client: redis.Redis, clock: Clock) -> None:
    """A message on its way from queue to claim gets the grace."""
    submit(client, "t1", age_s=1800.0)
    assert lost(Ledger(client, clock, grace_s=3600.0), clock) == []
    assert lost(Ledger(client, clock, grace_s=900.0), clock) == ["t1"]


def test_a_waiting_message_is_not_lost(client: redis.Redis, ledger: Ledger, clock: Clock) -> None:
    """However long it waits, a message in its queue is where it should be; pages do not hide it."""
    for number in range(2 * ledgers.PAGE + 10):
        submit(client, f"t{number}", queued=True)
    assert lost(ledger, clock) == []
    client.rpop(QUEUE)
    assert lost(ledger, clock) == ["t0"]


def test_a_message_that_a_worker_holds_is_not_lost(client: redis.Redis, ledger: Ledger, clock: Clock) -> None:
    """Fetched and waiting for its claim, as with a countdown, is with a worker."""
    submit(client, "t1")
    with Ghost(client) as ghost:
        hold(client, ghost.identity, [message("t1")])
        assert lost(ledger, clock) == []


def test_a_lost_request_is_sent_again_once(client: redis.Redis, ledger: Ledger, clock: Clock) -> None:
    """Two sweeps that miss the same request send it once, to the front, exactly as it was."""
    client.lpush(QUEUE, json.dumps(message("waiting")))
    submit(client, "t1")
    ledger.lost()
    clock.now += 100
    (found,) = ledger.lost()
    assert ledger.resend(found)
    assert not Ledger(client, clock).resend(found)
    assert client.lrange(QUEUE, -1, -1) == [reference("t1").encode()]
    assert fetch_all(client, QUEUE) == ["t1", "waiting"]
    assert json.loads(client.hget(keys.LEDGER, "t1") or b"")["resent"] == 1
    assert lost(ledger, clock) == []


def test_a_claimed_request_is_not_sent_again(client: redis.Redis, ledger: Ledger, clock: Clock) -> None:
    """A claim between the look and the resend wins."""
    submit(client, "t1")
    ledger.lost()
    clock.now += 100
    (found,) = ledger.lost()
    Journal(client).claim("t1", "mac@lab#b1")
    assert not ledger.resend(found)
    assert not client.exists(QUEUE)


@pytest.mark.usefixtures("producer_app")
def test_what_our_producer_writes_is_read(client: redis.Redis, clock: Clock) -> None:
    """A real submission leaves an entry that brings the very message back."""
    from tasks import generate

    generate.apply_async(
        kwargs={"model": "fake:1", "prompt": 'say "at": 1, "queue": "x"'}, queue=QUEUE, task_id="t1", priority=5
    )
    list_name = f"{QUEUE}\x06\x165"
    raw = client.rpop(list_name)
    ledger = Ledger(client, clock, grace_s=-5.0)
    ledger.lost()
    clock.now += 100
    (found,) = ledger.lost()
    assert (found.task_id, found.queue, json.loads(found.message)["headers"]["id"], found.resent) == (
        "t1",
        list_name,
        "t1",
        0,
    )
    assert ledger.resend(found)
    assert client.lrange(list_name, 0, -1) == [raw]


@pytest.mark.parametrize("garbage", [b"", b"\xff", b"null", b'{"at": 1}', b'{"at": 1, "queue": "q", "message": 5}'])
def test_an_unreadable_entry_can_only_be_given_up(
    client: redis.Redis, ledger: Ledger, clock: Clock, garbage: bytes
) -> None:
    """Garbage in the ledger is found, marked as hopeless, and deleted."""
    client.hset(keys.LEDGER, "t1", garbage)
    ledger.lost()
    clock.now += 100
    (found,) = ledger.lost()
    assert found.resent >= ledgers.RESENT_MAX
    assert ledger.give_up(found)
    assert not client.exists(keys.LEDGER)


def test_other_clients_messages_are_recognised(client: redis.Redis, ledger: Ledger, clock: Clock) -> None:
    """A message without a correlation id is known by its header; what is no message is passed over."""
    submit(client, "t1")
    foreign = message("t1")
    del foreign["properties"]["correlation_id"]
    client.lpush(QUEUE, json.dumps(foreign), "garbage", "[]")
    assert lost(ledger, clock) == []


@pytest.mark.parametrize(
    ("lasts_s", "effort_s", "pause_s"),
    [(0.2, 0.1, 20.0), (0.6, 0.005, 4.0), (5.0, 5.0, ledgers.MOST_PAUSE_S)],
    ids=["an idle machine", "a busy machine", "a very deep backlog"],
)
def test_a_deep_backlog_is_not_read_all_the_time(
    client: redis.Redis, ledger: Ledger, clock: Clock, lasts_s: float, effort_s: float, pause_s: float
) -> None:
    """Looks are spaced by what they cost, not by how long a busy machine lets them wait, and are never far apart."""
    submit(client, "t1")
    times, efforts = iter([1000.0, 1000.0 + lasts_s]), iter([3.0, 3.0 + effort_s])
    ledger.clock, ledger.effort = lambda: next(times), lambda: next(efforts)
    assert ledger.lost() == []
    ledger.clock, ledger.effort = clock, lambda: 0.0
    clock.now = 1000.0 + pause_s - 0.1
    assert ledger.lost() == []
    clock.now += 0.2
    assert [found.task_id for found in ledger.lost()] == ["t1"]


def test_what_was_seen_is_not_looked_for_at_once(client: redis.Redis, ledger: Ledger, clock: Clock) -> None:
    """What waits in its queue is read once in a while."""
    submit(client, "t1", queued=True)
    ledger.lost()
    client.delete(QUEUE)
    clock.now += ledgers.SEEN_S - 0.1
    ledger.lost()
    assert ledger._missing == set()
    clock.now += 0.2 + ledgers.MOST_PAUSE_S
    ledger.lost()
    assert ledger._missing == {"t1"}


def test_nobody_works_on_it(client: redis.Redis) -> None:
    """What waits has an entry, and what runs is held; a journal alone says of nobody that he goes on with it."""
    submit(client, "waits", queued=True)
    hold(client, "w#1", [message("runs")])
    client.sadd(keys.OWNERS, "w#1")
    for task_id in ("runs", "left"):
        client.xadd(keys.stream(task_id), {"d": "{}"})
    assert unattended(client, ["waits", "runs", "left"]) == {"left"}
    assert unattended(client, []) == set()

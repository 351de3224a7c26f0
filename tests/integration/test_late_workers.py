"""Workers that were silent and go on, and a Redis that comes back older: in whatever order, a request is never nowhere."""

from __future__ import annotations

import json
from contextlib import ExitStack, closing
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from celery.exceptions import Ignore
from kombu import Queue

from tasks.broker.channel.holding import Holding
from tasks.broker.queues.ledger import Ledger, Lost
from tasks.broker.queues.references import reference
from tasks.journal.items import Append, Asks
from tasks.journal.writer import Journal
from tasks.messages.journal import Release, Start, Token
from tasks.server import keys
from tasks.server.connection import connect
from tasks.sweep.ends import Ends
from tasks.sweep.returns import Returns
from tasks.worker.attempts import delivery as worker_delivery
from tasks.worker.attempts.attempt import Attempt
from tasks.worker.attempts.claiming import Claiming
from tasks.worker.attempts.claims import Claims
from tasks.worker.attempts.generation import Generation
from tasks.worker.attempts.job import Job
from tasks.worker.attempts.publisher import Publisher
from tasks.worker.attempts.recovery import Recovery, held_message
from tests.fleet import message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import redis
    from celery import Celery

    from tasks.journal.claim_answer import ClaimAnswer

QUEUE, TASK, MODEL = "tier-under-3B", "t1", "fake:1"
LATE, OTHER = "late@lab#b1", "other@lab#b2"


class NoResults:
    """Results of which none is final."""

    @staticmethod
    def final_entry(_task_id: str) -> None:
        """None."""


class Fleet:
    """The channels of two workers, the sweep, and the journal of one request."""

    def __init__(self, client: redis.Redis, channels: dict[str, Any]) -> None:
        self.client, self.channels = client, channels
        self.journal = Journal(client)
        self.fetched: list[Any] = []
        self._returns = Returns(client, Ends(self.journal, NoResults()))  # type: ignore[arg-type]
        for channel in channels.values():
            Queue(QUEUE, channel=channel).declare()
            channel.basic_consume(QUEUE, no_ack=False, callback=self.fetched.append, consumer_tag=QUEUE)

    def begin(self) -> None:
        """One request waits, and two workers live."""
        self.client.flushdb()
        self.fetched.clear()
        for identity in self.channels:
            self.client.set(keys.alive(identity), "")
            self.client.sadd(keys.OWNERS, identity)
        text = json.dumps(message(TASK, QUEUE))
        entry = {"at": self.client.time()[0], "queue": QUEUE, "message": text, "model": MODEL}
        self.client.set(keys.request(TASK), "digest")
        self.client.hset(keys.LEDGER, TASK, json.dumps(entry))
        self.client.lpush(QUEUE, reference(TASK))

    def sweep(self, before_it_is_forgotten: Callable[[], None] = lambda: None) -> None:
        """Take the late worker for dead."""
        self.client.delete(keys.alive(LATE))
        disown: Any = self._returns._disown

        def forget(*args: Any) -> None:
            before_it_is_forgotten()
            disown(*args)

        self._returns._disown = forget  # type: ignore[assignment]
        self._returns.return_work({OTHER})
        self._returns._disown = disown

    def send_again(self) -> None:
        """Take the request for lost, as a look does that has missed it on its way."""
        entry: Any = self.client.hget(keys.LEDGER, TASK)
        if entry is not None:
            values = json.loads(entry)
            Ledger(self.client, lambda: 0.0).resend(Lost(TASK, entry, QUEUE, values["message"], 0))

    def snapshot(self) -> dict[bytes, Any]:
        """All that Redis knows now."""
        names: Any = self.client.keys()
        return {name: self.client.dump(name) for name in names}

    def roll_back(self, snapshot: dict[bytes, Any]) -> None:
        """Have Redis know no more than this."""
        self.client.flushdb()
        for name, value in snapshot.items():
            self.client.restore(name, 0, value)

    def is_somewhere(self) -> bool:
        """Whether the ledger has the request, or a worker holds it that the sweep looks after."""
        owners: Any = self.client.smembers(keys.OWNERS)
        return bool(
            self.client.hexists(keys.LEDGER, TASK)
            or any(self.client.exists(keys.unacked(identity.decode())) for identity in owners)
        )


class Delivery:
    """One fetch of a worker, and the steps of the thread that has the request then."""

    def __init__(self, fleet: Fleet, identity: str) -> None:
        self._fleet, self._identity = fleet, identity
        #: What was fetched, if anything was.
        self.message: Any = None
        self._claim: ClaimAnswer | None = None
        self._job = Job(TASK, QUEUE, held=lambda: held_message(self.message))

    def steps(self, letters: str) -> dict[str, Callable[[], None]]:
        """Its steps, in their order, by these letters."""
        return dict(zip(letters, (self.fetch, self.claim, self.give_back), strict=True))

    def reconnect(self) -> None:
        """Note again what the worker holds, and give back what it does not run any more."""
        recovery = Recovery(self._fleet.journal, Publisher(self._fleet.journal, LATE), LATE, str)
        recovery.reconnect(self._fleet.channels[LATE], [] if self.message.acknowledged else [self._job])

    def fetch(self) -> None:
        """Take what waits, if anything does."""
        item: Any = self._fleet.client.rpop(QUEUE)
        if item is not None:
            before = len(self._fleet.fetched)
            self._fleet.channels[self._identity]._fetch(item.decode(), 0, QUEUE)
            self.message = (self._fleet.fetched[before:] or [None])[0]

    def claim(self) -> None:
        """Claim the request, or drop this delivery."""
        if self.message is not None:
            tag = self.message.delivery_tag
            self._claim = self._fleet.journal.claim(TASK, self._identity, delivery=tag)
            if self._claim.kind != "claimed":
                self.message.ack()

    def give_back(self) -> None:
        """End as a worker ends what it was told to stop: it drops what it has lost meanwhile, and requeues the rest."""
        claim = self._claim
        if claim is not None and claim.kind == "claimed":
            if self._fleet.journal.release(TASK, claim.attempt, 1, crashed=False, nonce=claim.nonce) == "fenced":
                self.message.ack()
            else:
                self.message.reject(requeue=True)


class Behind(Delivery):
    """A delivery of the late worker, whose request runs, and whose first token is not in the journal yet."""

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(fleet, LATE)
        #: What Redis knew on the way here.
        self.known = {"queued": fleet.snapshot()}
        self.fetch()
        self.known["fetched"] = fleet.snapshot()
        self.claim()
        self.known["claimed"] = fleet.snapshot()
        assert self._claim is not None
        self._attempt = Attempt(TASK, self._claim, "m", lambda: held_message(self.message))
        self._job = Job(TASK, QUEUE, held=self._attempt.held)
        self._job.attempt = self._attempt
        start = Start(attempt=1, model="m", revision="r", prompt_tokens=1, cached_tokens=0, prompt_hash="h")
        assert fleet.journal.append([self._attempt.note(start)]) == ["ok"]
        self._attempt.note(Token(attempt=1, index=0, ids=[1], text="a"))
        self._is_lost = False

    def fill(self) -> None:
        """Write what the journal lacks, as after a lost connection."""
        if not self.message.acknowledged:
            self._fill()

    def _fill(self) -> None:
        self._is_lost = not self._fleet.journal.fill(TASK, self._attempt.items, LATE, self._attempt.held)

    def give_back(self) -> None:
        """End as a worker does; an entry that Redis has lost is written first."""
        release = self._attempt.note(self._attempt.release(crashed=False))
        if not self._is_lost and self._fleet.journal.append([release])[0] in ("behind", "gone"):
            self._fill()
        if self._is_lost or self._fleet.journal.append([release]) == ["fenced"]:
            self.message.ack()
        else:
            self.message.reject(requeue=True)


@pytest.fixture
def fleet(producer_app: Celery, redis_url: str) -> Iterator[Fleet]:
    """Two workers without processes."""
    with ExitStack() as stack:
        client = stack.enter_context(closing(connect(redis_url)))
        channels = {}
        for identity in (LATE, OTHER):
            options = Holding(identity).transport_options()
            connection = stack.enter_context(producer_app.connection_for_read(transport_options=options))
            channels[identity] = connection.channel()
        yield Fleet(client, channels)


def orders(*threads: str) -> Iterator[str]:
    """All ways to run the steps of these threads, each a letter, beside each other."""
    if not any(threads):
        yield ""
    for n, thread in enumerate(threads):
        if thread:
            for rest in orders(*threads[:n], thread[1:], *threads[n + 1 :]):
                yield thread[0] + rest


def losses(fleet: Fleet, order: str, steps: Mapping[str, Callable[[], None]]) -> list[str]:
    """Do these steps until the request is nowhere: the steps up to then, or nothing."""
    for at, step in enumerate(order, start=1):
        steps[step]()
        if not fleet.is_somewhere():
            return [order[:at]]
    return []


@pytest.mark.parametrize("second", [LATE, OTHER])
@pytest.mark.parametrize("event", ["sweep", "send_again"])
def test_no_order_loses_a_request(fleet: Fleet, second: str, event: str) -> None:
    """A message that comes twice, also to one worker, is held, or in the ledger, after each step: whoever is killed then."""
    lost = []
    for order in orders("abc", "ABC", "!"):
        fleet.begin()
        first, again = Delivery(fleet, LATE), Delivery(fleet, second)
        steps = {
            **first.steps("abc"),
            **again.steps("ABC"),
            "!": getattr(fleet, event),
        }
        lost += losses(fleet, order, steps)
    assert lost == []


@pytest.mark.parametrize("second", [LATE, OTHER])
def test_no_order_loses_a_request_that_is_written_again(fleet: Fleet, second: str) -> None:
    """So it is where the late worker, which runs the request, writes what its journal lacks, and notes its message again."""
    lost = []
    for order in orders("fc", "ABC", "!"):
        fleet.begin()
        first, again = Behind(fleet), Delivery(fleet, second)
        steps = {
            "f": first.fill,
            "c": first.give_back,
            **again.steps("ABC"),
            "!": fleet.sweep,
        }
        lost += losses(fleet, order, steps)
    assert lost == []


@pytest.mark.parametrize("known", ["queued", "fetched", "claimed"])
def test_no_order_loses_a_request_of_which_redis_comes_back_older(fleet: Fleet, known: str) -> None:
    """The worker that runs it connects anew and writes it again, in whatever order with its end and with another worker."""
    lost = []
    for order in orders("Rf", "c", "ABC"):
        fleet.begin()
        first, again = Behind(fleet), Delivery(fleet, OTHER)
        fleet.roll_back(first.known[known])
        steps = {
            "R": first.reconnect,
            "f": first.fill,
            "c": first.give_back,
            **again.steps("ABC"),
        }
        lost += losses(fleet, order, steps)
    assert lost == []


def test_no_order_loses_a_request_that_redis_does_not_know_any_more(fleet: Fleet) -> None:
    """Its worker has just fetched it, and gives it back, before or after it connects anew and claims it."""
    lost = []
    for order in orders("bc", "R", "A"):
        fleet.begin()
        first, again = Delivery(fleet, LATE), Delivery(fleet, OTHER)
        first.fetch()
        fleet.roll_back({})
        for identity in fleet.channels:
            fleet.client.set(keys.alive(identity), "")
        steps = {**first.steps("abc"), "R": first.reconnect, "A": again.fetch}
        for step in order:
            steps[step]()
        if not fleet.is_somewhere():
            lost.append(order)
    assert lost == []


def test_what_is_held_again_is_looked_after(fleet: Fleet) -> None:
    """A late worker connects anew, and notes what waits there for a model: if it is killed then, the sweep finds the message."""
    fleet.begin()
    late = Delivery(fleet, LATE)
    late.fetch()
    fleet.sweep()
    assert fleet.client.smembers(keys.OWNERS) == {OTHER.encode()}
    fleet.client.delete(QUEUE)  # another worker takes the reference, and is killed at once
    late.reconnect()
    late.claim()
    assert fleet.is_somewhere()
    fleet.sweep()
    assert (fleet.client.llen(QUEUE), fleet.client.hlen(keys.LEDGER)) == (1, 1)


def test_what_comes_as_it_is_forgotten_is_looked_after(fleet: Fleet) -> None:
    """A worker that fetches between the return of its messages and the end of its sweep stays an owner."""
    fleet.begin()
    late = Delivery(fleet, LATE)
    fleet.sweep(before_it_is_forgotten=late.fetch)
    late.claim()
    assert fleet.is_somewhere()


def test_a_claim_is_for_one_delivery(fleet: Fleet) -> None:
    """A worker hands back what it claimed as it fetched it, and fetches it again after another worker: it claims it anew."""
    fleet.begin()
    claims = Claims(fleet.journal, LATE, "")
    claims.serve(MODEL, SimpleNamespace(serves=True))  # type: ignore[arg-type]
    fleet.channels[LATE].holding.claims = claims
    first, other, again = Delivery(fleet, LATE), Delivery(fleet, OTHER), Delivery(fleet, LATE)
    first.fetch()
    assert [entry.type for entry in fleet.journal.read(TASK)] == ["claim"]
    first.message.reject(requeue=True)  # its model was unloaded meanwhile
    other.fetch()
    other.claim()
    other.give_back()
    again.fetch()
    tag = again.message.delivery_tag
    claim = claims.take(TASK, tag) or fleet.journal.claim(TASK, LATE, delivery=tag)
    assert (claim.kind, claim.attempt) == ("claimed", 3)
    release = Append.of(TASK, 1, Release(attempt=claim.attempt, crashed=False), claim.nonce)
    assert fleet.journal.append([release]) == ["ok"]


def test_what_was_given_back_is_left_to_others(fleet: Fleet) -> None:
    """A thread that wakes up before it has claimed leaves the request where it is, and writes nothing."""
    fleet.begin()
    first = Delivery(fleet, LATE)
    first.fetch()
    fleet.sweep()
    profile: Any = SimpleNamespace(identity=LATE)
    no_publisher: Any = None
    claiming = Claiming(profile, fleet.journal, no_publisher, Claims(fleet.journal, LATE, ""))
    late = worker_delivery.Delivery(Job(TASK, QUEUE), first.message.delivery_tag, Asks("", 1))
    with pytest.raises(Ignore):
        claiming.claim(late, "fake:1", Generation())
    assert fleet.journal.read(TASK) == []
    assert fleet.client.llen(QUEUE) == fleet.client.hlen(keys.LEDGER) == 1

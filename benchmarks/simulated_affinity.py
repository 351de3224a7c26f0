"""Affinity in a fleet that exists in Redis alone: the product's own decisions, for many workers without models.

    python benchmarks/simulated_affinity.py --workers 50 --seconds 60

Requests come as traces of shared prefixes have them: system prompts whose popularity falls as Zipf has it, and conversations of
several turns. ``put.lua`` chooses the lanes and :class:`tasks.worker.queues.lanes.Lanes` the order, against a private server and
in real time, since the scripts read its clock. The work is made up: a prefill of what is not in a worker's cache, then an answer.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import time
import uuid
from collections import OrderedDict
from contextlib import closing
from dataclasses import dataclass, field
from itertools import accumulate, count
from typing import TYPE_CHECKING, Any

from benchmarks.figures import p50, p99
from tasks.broker.queues.lanes import FleetLanes
from tasks.broker.queues.queues import list_of, node_of
from tasks.broker.queues.references import referred
from tasks.broker.submission.put import queue_one
from tasks.broker.submission.submission import put_of
from tasks.broker.submission.terms import Terms
from tasks.demo.embedded import EmbeddedServer
from tasks.names import ACCEPTED, GENERATE
from tasks.server import keys
from tasks.server.connection import connect
from tasks.worker.queues.lanes import LOOK_S, Lanes
from worker_config.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from tasks.broker.message.prefix import Prefix

QUEUE, SLOTS = "tier-under-3B", 8
KINDS, ZIPF, TURNS = 200, 1.1, 4
SYSTEM_CHARACTERS, TURN_CHARACTERS = 6_000, 300
#: Seconds for a character of a prompt, and for an answer; a reader thinks before the next turn.
PREFILL_S, ANSWER_S, THINK_S = 0.25 / SYSTEM_CHARACTERS, 0.5, 1.0
#: Beginnings that a worker's cache holds.
CACHED = 200


@dataclass(slots=True)
class Turn:
    """A request: what it says, which turn of its conversation it is, and when it was sent."""

    messages: list[dict[str, str]]
    number: int
    sent_at: float = 0.0
    prefixes: tuple[Prefix, ...] = ()


class SimulatedWorker:
    """A worker that takes requests as the product does, and answers none."""

    def __init__(self, client: redis.Redis, number: int, slow: float) -> None:
        self.node = f"sim-{number}@here"
        self._held = keys.unacked(f"{self.node}#b1")
        self._client = client
        self._fleet = FleetLanes(client, f"{self.node}#b1", lambda: {QUEUE: SLOTS})
        self.lanes = Lanes(self.node, self._fleet, lambda: True)
        self.slow = slow
        self.busy = 0
        self._cache: OrderedDict[str, None] = OrderedDict()

    def take(self) -> str | None:
        """The id of the next request, by the order of its lists."""
        if self.busy == SLOTS:
            return None
        before, after = self.lanes.beside(QUEUE, 0)
        for name in (*before, list_of(QUEUE, 0), *after):
            message: Any = self._client.rpop(name)
            if message is not None:
                self.lanes.took(name)
                self.busy += 1
                task_id = referred(message)
                assert task_id is not None
                self._client.hset(self._held, task_id, "")
                return task_id
        return None

    def begin(self, prefixes: tuple[Prefix, ...]) -> tuple[float, bool]:
        """The seconds of a prefill, and whether most of it was spared."""
        known = max((prefix.characters for prefix in prefixes if prefix.digest in self._cache), default=0)
        waits_ms = {prefix.digest: int(PREFILL_S * prefix.characters * 500) for prefix in prefixes}
        self._fleet.note_warm(waits_ms)
        for digest in waits_ms:
            self._cache[digest] = None
            self._cache.move_to_end(digest)
        while len(self._cache) > CACHED:
            self._cache.popitem(last=False)
        return self.slow * PREFILL_S * (prefixes[0].characters - known), known >= prefixes[0].characters / 2

    def end(self, task_id: str) -> None:
        """A request has been answered."""
        self.busy -= 1
        self._client.hdel(self._held, task_id)


@dataclass(slots=True)
class Simulation:
    """One run, in real time. Events are what happens when, in the order of their times."""

    client: redis.Redis
    workers: list[SimulatedWorker]
    per_s: float
    lanes: bool
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    firsts_s: list[float] = field(default_factory=list)
    hits: list[bool] = field(default_factory=list)
    late_s: float = 0.0
    _events: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _number: count[int] = field(default_factory=count)
    _turns: dict[str, Turn] = field(default_factory=dict)

    def run(self, seconds: float) -> None:
        """Have conversations begin for so long, and all of them end."""
        started = time.monotonic()
        weights = list(accumulate(1 / rank**ZIPF for rank in range(1, KINDS + 1)))
        at = started
        while at < started + seconds:
            at += self.chance.expovariate(self.per_s / TURNS)
            (kind,) = self.chance.choices(range(KINDS), cum_weights=weights)
            self._at(at, lambda kind=kind: self._send(self._first(kind)))  # type: ignore[misc]
        for place, worker in enumerate(self.workers):
            self._look(worker, started + LOOK_S * place / len(self.workers), started + seconds)
        while self._events:
            due, _, event = heapq.heappop(self._events)
            time.sleep(max(0.0, due - time.monotonic()))
            self.late_s = max(self.late_s, time.monotonic() - due)
            event()

    def _at(self, due: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (due, next(self._number), event))

    def _look(self, worker: SimulatedWorker, due: float, until: float) -> None:
        def look() -> None:
            next_s = worker.lanes.look()
            self._fill(worker)
            if self._turns or due < until:
                self._look(worker, time.monotonic() + next_s, until)

        self._at(due, look)

    def _first(self, kind: int) -> Turn:
        text = f"{kind} of {self.lanes} " + "knows. " * (SYSTEM_CHARACTERS // 7)
        return Turn([{"role": "system", "content": text}, self._question()], 0)

    def _question(self) -> dict[str, str]:
        return {"role": "user", "content": uuid.uuid4().hex * (TURN_CHARACTERS // 32)}

    def _send(self, turn: Turn) -> None:
        task_id = str(uuid.uuid4())
        values = {"messages": turn.messages, "model": "simulated"}
        headers, properties = {"task": GENERATE, "id": task_id}, {"correlation_id": task_id}
        put = put_of([[], values, {}], headers, {**properties, ACCEPTED: True}, QUEUE, Settings())
        turn.prefixes, turn.sent_at = put.terms.prefixes, time.monotonic()
        self._turns[task_id] = turn
        queue_one(self.client, put if self.lanes else put._replace(terms=Terms()))
        entry: Any = self.client.hget(keys.LEDGER, task_id)
        node = node_of(str(json.loads(entry)["queue"]))
        free = [worker for worker in self.workers if worker.busy < SLOTS and node in ("", worker.node)]
        if free:
            self._fill(self.chance.choice(free))

    def _fill(self, worker: SimulatedWorker) -> None:
        while (task_id := worker.take()) is not None:
            self.client.hdel(keys.LEDGER, task_id)
            turn = self._turns[task_id]
            prefill_s, hit = worker.begin(turn.prefixes)
            now = time.monotonic()
            self.hits.append(hit)
            self.firsts_s.append(now + prefill_s - turn.sent_at)
            self._at(now + prefill_s + ANSWER_S, lambda task_id=task_id: self._end(worker, task_id))  # type: ignore[misc]

    def _end(self, worker: SimulatedWorker, task_id: str) -> None:
        worker.end(task_id)
        turn = self._turns.pop(task_id)
        if turn.number + 1 < TURNS:
            answer = {"role": "assistant", "content": task_id}
            following = Turn([*turn.messages, answer, self._question()], turn.number + 1)
            self._at(time.monotonic() + THINK_S, lambda: self._send(following))
        self._fill(worker)


def main() -> None:
    """Without lanes, with them, and with a worker that is three times as slow."""
    parser = argparse.ArgumentParser(description="Simulate affinity in a fleet.")
    parser.add_argument("--workers", type=int, default=50, help="how many (50)")
    parser.add_argument("--seconds", type=float, default=60.0, help="for how long conversations begin (60)")
    parser.add_argument("--per-s", type=float, default=40.0, help="requests a second (40)")
    options = parser.parse_args()
    for slow in (1.0, 3.0):
        for lanes in (False, True):
            with EmbeddedServer() as server, closing(connect(server.url)) as client:
                workers = [SimulatedWorker(client, n, slow if n == 0 else 1.0) for n in range(options.workers)]
                run = Simulation(client, workers, options.per_s, lanes)
                run.run(options.seconds)
            about = f"lanes {'on ' if lanes else 'off'}, one worker {slow:g} times as slow: {len(run.hits)} requests"
            firsts = f"first token p50 {p50(run.firsts_s) * 1000:.0f} ms, p99 {p99(run.firsts_s) * 1000:.0f} ms"
            warm = f"{sum(run.hits) / len(run.hits):.0%} warm"
            print(f"{about}, {warm}, {firsts}; events were {run.late_s * 1000:.0f} ms late at most", flush=True)


if __name__ == "__main__":
    main()

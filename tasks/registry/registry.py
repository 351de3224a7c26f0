"""The registry: one hash of workers' records, a lease beside each, and a short history. Every time is Redis's clock."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from redis.exceptions import NoPermissionError

from tasks.messages.registry import Unreadable, WorkerRecord, decode_record, encode_record
from tasks.registry import scripts
from tasks.registry.grace import Grace
from tasks.registry.values import json_object, number, text
from tasks.server import keys
from tasks.server.connection import translated

if TYPE_CHECKING:
    from collections.abc import Mapping

    import redis

BeatAnswer: TypeAlias = Literal["ok", "registered", "swept", "superseded"]

#: How many departed workers are remembered.
HISTORY_LENGTH = 100
#: For how long a swept worker that wakes up is told so: longer than a weekend with the lid closed.
SWEPT_TTL_S = 7 * 86_400


class DuplicateWorker(Exception):
    """Another worker of the same name is alive; the message says since when, and what to do."""


class Registration(NamedTuple):
    """``started_at`` by Redis's clock, and the identity of the dead predecessor that was superseded, if any."""

    started_at: float
    superseded: str | None


class Beat(NamedTuple):
    """The findings of a heartbeat.

    ``registered``: the record had vanished and was written again. ``swept``: this worker was declared dead, and what it
    held was given to others; nothing was written. ``superseded``: another boot has the name; nothing was written.
    ``swept_at`` is when the last sweep was, ``None`` if there never was one.
    """

    answer: BeatAnswer
    at: float
    swept_at: float | None


class Reading(NamedTuple):
    """All records, and when that was. ``leases`` has the client id of each worker whose lease is valid."""

    now: float
    records: list[WorkerRecord | Unreadable]
    leases: dict[str, str]


@dataclass(slots=True, frozen=True)
class Connections:
    """The workers whose named connections the server has. ``identities`` is ``None`` where it may not be asked."""

    run_id: str
    uptime_s: float
    identities: frozenset[str] | None


class Registry:
    """Reads and writes workers' records. Safe to share between threads, as its client is.

    Args:
        client: answers in bytes (:func:`tasks.server.connection.connect`).
        grace: how long a predecessor that is absent keeps its name.

    Every method raises :class:`tasks.errors.BrokerUnavailable` when Redis cannot be reached or refuses for now.
    """

    def __init__(self, client: redis.Redis, grace: Grace = Grace()) -> None:  # noqa: B008  (it is frozen)
        self.client = client
        self._grace = grace
        self._events = keys.channel_prefix(int(client.get_connection_kwargs().get("db") or 0)) + keys.EVENTS
        self._register = client.register_script(scripts.source("register"))
        self._beat = client.register_script(scripts.source("beat"))
        self._depart = client.register_script(scripts.source("depart"))

    def register(self, record: WorkerRecord, lease_ms: int, *, client_id: str = "") -> Registration:
        """Write a worker's first record; supersede a dead predecessor of the same name.

        A predecessor with a valid lease is looked at for a second, since it may be reconnecting, and for longer when
        Redis has just started.

        Args:
            record: its times are ignored.
            lease_ms: how long the worker counts as alive after this.
            client_id: Redis's number of the connection that stands for its life; empty if there is none to look for.

        Raises:
            DuplicateWorker: the predecessor is alive.
        """
        found_dead = ""
        while True:
            answer, value = self._register_once(record, lease_ms, client_id, found_dead)
            if answer == "registered":
                return Registration(float(value), f"{record.node}#{found_dead}" if found_dead else None)
            found_dead = value
            if found_dead:
                self._refuse_if_alive(record.node, found_dead)

    def _register_once(self, record: WorkerRecord, lease_ms: int, client_id: str, dead: str) -> tuple[str, str]:
        identity = record.identity
        with translated(f"registering {record.node}"):
            answer, value = self._register(
                [keys.WORKERS, keys.alive(identity), keys.swept(identity), keys.OWNERS, keys.HISTORY],
                [
                    *(record.node, record.boot, dead, lease_ms, client_id, encode_record(record)),
                    *(identity, keys.alive(""), keys.swept(""), SWEPT_TTL_S, HISTORY_LENGTH, self._events),
                ],
            )
        return answer.decode(), value.decode()

    def _refuse_if_alive(self, node: str, boot: str) -> None:
        identity = f"{node}#{boot}"
        started = time.monotonic()
        while (lease := self._lease(identity)) is not None:
            seen = self.connections({identity: lease})
            if not lease or seen.identities is None or identity in seen.identities:
                raise DuplicateWorker(
                    f"a worker called {node} is alive (boot {boot}): stop it first, or give this one a name of its own "
                    "with -n"
                )
            absent_s = time.monotonic() - started
            if absent_s >= self._grace.absent_s and seen.uptime_s >= self._grace.restarted_s:
                return
            time.sleep(self._grace.look_s)

    def _lease(self, identity: str) -> str | None:
        with translated(f"reading the lease of {identity}"):
            value = self.client.get(keys.alive(identity))
        return None if value is None else text(value)

    def beat(
        self,
        record: WorkerRecord,
        lease_ms: int,
        *,
        client_id: str = "",
        loop_age_s: float = 0.0,
        client: redis.Redis | None = None,
    ) -> Beat:
        """Refresh a worker's record and lease; write them again where Redis has lost them.

        Args:
            record: its ``started_at`` is kept (0: now), its other times are ignored.
            lease_ms: how long the worker counts as alive after this.
            client_id: Redis's number of the connection that stands for its life.
            loop_age_s: how long ago Celery's loop gave its last sign.
            client: the connection to use instead of the registry's own.
        """
        identity = record.identity
        started_at = f"{record.started_at:.6f}" if record.started_at else ""
        loop_age_ms = int(loop_age_s * 1000)
        with translated(f"heartbeat of {record.node}"):
            answer, at, swept_at = self._beat(
                [keys.WORKERS, keys.alive(identity), keys.swept(identity), keys.OWNERS, keys.SWEEP],
                [
                    *(record.node, record.boot, lease_ms, client_id, encode_record(record)),
                    *(identity, started_at, loop_age_ms, self._events),
                ],
                client,
            )
        return Beat(answer.decode(), float(at), number(swept_at))

    def leave(self, record: WorkerRecord, *, client: redis.Redis | None = None) -> bool:
        """Move the record of a worker that ends into the history. ``False`` if the name is another boot's."""
        return self._depart_as(record.node, record.boot, departure="left", reason=record.reason, client=client)

    def declare_dead(self, node: str, boot: str, *, lease: str, reason: str) -> bool:
        """Declare a worker dead: its lease ends, its record goes into the history, and once it wakes up it is told.

        Args:
            node: the worker's name.
            boot: which start of it.
            lease: the lease that it had when it was found dead, or empty.
            reason: the observation, for people.

        Returns:
            ``False`` if it has shown a sign of life since, or somebody else has declared it dead.
        """
        return self._depart_as(node, boot, departure="dead", lease=lease, reason=reason)

    def _depart_as(
        self, node: str, boot: str, *, departure: str, reason: str, lease: str = "", client: redis.Redis | None = None
    ) -> bool:
        identity = f"{node}#{boot}"
        with translated(f"moving the record of {node} into the history"):
            moved = self._depart(
                [
                    *(keys.WORKERS, keys.alive(identity), keys.swept(identity), keys.OWNERS),
                    *(keys.unacked(identity), keys.HISTORY),
                ],
                [node, boot, identity, departure, lease, reason, SWEPT_TTL_S, HISTORY_LENGTH, self._events],
                client,
            )
        return bool(moved)

    def read(self) -> Reading:
        """All records and leases, and the time by Redis's clock."""
        with translated("reading the registry"):
            pipeline = self.client.pipeline(transaction=False)
            pipeline.time()
            pipeline.hgetall(keys.WORKERS)
            (seconds, microseconds), stored = pipeline.execute()
        records = sorted(
            (decode_record(text(node), payload) for node, payload in stored.items()), key=lambda record: record.node
        )
        leases = self.leases([kept.identity for kept in records if isinstance(kept, WorkerRecord)])
        return Reading(seconds + microseconds / 1e6, records, leases)

    def records(self) -> list[WorkerRecord | Unreadable]:
        """Return all records by name; an unreadable one says why."""
        return self.read().records

    def leases(self, identities: list[str]) -> dict[str, str]:
        """The client ids in the valid leases of these workers."""
        if not identities:
            return {}
        with translated("reading leases"):
            values: Any = self.client.mget([keys.alive(identity) for identity in identities])
        return {identity: text(value) for identity, value in zip(identities, values, strict=True) if value is not None}

    def connections(self, leases: Mapping[str, str]) -> Connections:
        """Return which of these workers' connections exist under the number in their lease and with their name.

        Asking for numbers is cheap; the list of all clients of a large fleet is megabytes.
        """
        numbers = sorted({number for number in leases.values() if number.isdigit()})
        with translated("looking for workers' connections"):
            server: Any = self.client.info("server")
            try:
                listed: Any = self.client.client_list(client_id=list(numbers)) if numbers else []
            except NoPermissionError:
                return Connections(server["run_id"], float(server["uptime_in_seconds"]), None)
        names = {client["id"]: client["name"] for client in listed}
        present = {identity for identity, number in leases.items() if names.get(number) == keys.connection(identity)}
        return Connections(server["run_id"], float(server["uptime_in_seconds"]), frozenset(present))

    def history(self) -> list[dict[str, Any]]:
        """The last departed workers, newest first: their records with ``departed`` (why) and ``departed_at``."""
        with translated("reading the history"):
            stored: Any = self.client.lrange(keys.HISTORY, 0, HISTORY_LENGTH - 1)
        return [record for payload in stored if (record := json_object(payload))]

    def last_sweep(self) -> tuple[float | None, str]:
        """Return when the last sweep was, by Redis's clock, and whose; ``None`` if there never was one."""
        with translated("reading the sweep's mark"):
            at, by = self.client.hmget(keys.SWEEP, ["at", "by"])
        return number(at or b""), text(by or b"")

"""Stores records of requests, limits, usage and API keys in Redis. Its methods block: call them on threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.broker.queues.limits import position
from tasks.gateway.records import scripts
from tasks.gateway.records.access_key import LOCAL, AccessKey, digest_of
from tasks.gateway.records.record import Record
from tasks.server import keys
from tasks.server.connection import translated
from tasks.server.script import Script

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import redis

    from tasks.broker.queues.limits import Position

ADMIT = Script(scripts.source("admit"))
CHARGE = Script(scripts.source("charge"))
LEASE = Script(scripts.source("lease"))
#: The time that a request counts as open after its gateway has last renewed it.
LEASE_S = 60
COUNTERS = ("requests", "refused", "prompt_tokens", "completion_tokens", "used_at")


@dataclass(slots=True, frozen=True, kw_only=True)
class Allowance:
    """The rest of a key's limits. ``exceeded`` names the limit that refuses the request; it is empty where none does."""

    exceeded: str
    wait_s: float
    requests: int
    tokens: int
    requests_whole_in_s: float
    tokens_whole_in_s: float


class Store:
    """One connection pool's view.

    Args:
        client: answers in bytes; threads may share it.
        record_ttl_s: how long a request's record is kept.
    """

    def __init__(self, client: redis.Redis, record_ttl_s: int = 86_400) -> None:
        self._client = client
        self.record_ttl_s = record_ttl_s

    def admit(self, record: Record, key: AccessKey) -> Allowance:
        """Take a request within its key's limits, and keep its record; or not, and count that.

        Raises:
            BrokerUnavailable: Redis cannot be reached, or refuses this client.
        """
        names = (*_names_of(key.id), keys.gateway_request(record.id))
        limits = (key.requests_a_minute, key.tokens_a_minute, key.at_once)
        arguments = (*limits, record.reserved, record.id, LEASE_S, record.encode(), self.record_ttl_s)
        with translated(f"request {record.id}"):
            exceeded, wait_s, requests, tokens, requests_s, tokens_s = ADMIT(self._client, names, arguments)
        return Allowance(
            exceeded=exceeded.decode(),
            wait_s=float(wait_s),
            requests=requests,
            tokens=tokens,
            requests_whole_in_s=float(requests_s),
            tokens_whole_in_s=float(tokens_s),
        )

    def charge(self, record: Record, key: AccessKey, prompt_tokens: int, completion_tokens: int) -> None:
        """Count the cost of a request, and keep its record, which Redis may have lost; the second call changes nothing.

        Raises:
            BrokerUnavailable: Redis cannot be reached, or refuses this client.
        """
        names = (*_names_of(key.id), keys.gateway_request(record.id))
        cost = (key.tokens_a_minute, record.reserved, record.id, prompt_tokens, completion_tokens)
        arguments = (*cost, record.encode(), self.record_ttl_s)
        with translated(f"request {record.id}"):
            CHARGE(self._client, names, arguments)

    def count(self, record: Record, prompt_tokens: int, completion_tokens: int) -> None:
        """Count the cost of a record that was not admitted as a request; the second call changes nothing.

        Raises:
            BrokerUnavailable: Redis cannot be reached, or refuses this client.
        """
        self.charge(record, AccessKey(id=record.owner, name=""), prompt_tokens, completion_tokens)

    def uncharged(self, records: Sequence[Record]) -> list[bool]:
        """Whether nothing was counted of these requests yet, as far as Redis knows.

        Raises:
            BrokerUnavailable: Redis cannot be reached, or refuses this client.
        """
        with translated("requests that have ended"):
            pipeline = self._client.pipeline(transaction=False)
            for record in records:
                pipeline.hexists(keys.gateway_request(record.id), "charged")
            return [not charged for charged in pipeline.execute()]

    def lease(self, batch_id: str, holder: str, lease_s: int) -> bool:
        """Take or keep a batch for so long; whether this holder has it now. With no time it is given up.

        Raises:
            BrokerUnavailable: Redis cannot be reached, or refuses this client.
        """
        with translated(f"batch {batch_id}"):
            return bool(LEASE(self._client, [keys.gateway_batch(batch_id)], [holder, lease_s]))

    def renew(self, open_requests: Iterable[Record]) -> None:
        """Say that these requests are still open, unless another gateway has seen them end; write the records that Redis lost.

        Raises:
            BrokerUnavailable: Redis cannot be reached, or refuses this client.
        """
        records = list(open_requests)
        with translated("open requests"):
            seconds, microseconds = self._client.time()
            until = seconds + microseconds / 1e6 + LEASE_S
            pipeline = self._client.pipeline(transaction=False)
            for record in records:
                pipeline.zadd(keys.gateway_open(record.owner), {record.id: until}, xx=True, ch=True)
            # A machine that slept, or whose clock was set, has let them lapse; Redis may have come back older. They still count.
            lapsed = [record for record, renewed in zip(records, pipeline.execute(), strict=True) if not renewed]
            for record in lapsed:
                pipeline.hexists(keys.gateway_request(record.id), "charged")
            for record, charged in zip(lapsed, pipeline.execute(), strict=True):
                if not charged:
                    name = keys.gateway_request(record.id)
                    pipeline.zadd(keys.gateway_open(record.owner), {record.id: until})
                    pipeline.hsetnx(name, "record", record.encode())
                    pipeline.expire(name, self.record_ttl_s)
            pipeline.execute()

    def record(self, request_id: str) -> Record | None:
        """Read the record of a request; ``None`` where there is none.

        Raises:
            BrokerUnavailable: Redis cannot be reached, or refuses this client.
        """
        with translated(f"request {request_id}"):
            text: Any = self._client.hget(keys.gateway_request(request_id), "record")
        return Record.decode(text) if text else None

    def add_reader(self, request_id: str) -> int:
        """Count a client that goes on with a stream; how many there have been.

        Raises:
            BrokerUnavailable: Redis cannot be reached, or refuses this client.
        """
        name = keys.gateway_request(request_id)
        with translated(f"request {request_id}"):
            pipeline = self._client.pipeline(transaction=False)
            pipeline.hincrby(name, "readers", 1)
            pipeline.expire(name, self.record_ttl_s)
            return int(pipeline.execute()[0])

    def readers(self, request_id: str) -> int:
        """Return how many clients have continued a stream.

        Raises:
            BrokerUnavailable: Redis cannot be reached, or refuses this client.
        """
        with translated(f"request {request_id}"):
            count: Any = self._client.hget(keys.gateway_request(request_id), "readers")
        return int(count or 0)

    def position(self, request_id: str) -> Position | None:
        """Return a request's place in its queue, over a connection that all requests share; ``None`` once it waits no more.

        Raises:
            BrokerUnavailable: Redis cannot be reached, or refuses this client.
        """
        return position(self._client, request_id)

    def key(self, secret: str) -> AccessKey | None:
        """The record of a key; ``None`` if nobody made it, or it was revoked.

        Raises:
            BrokerUnavailable: Redis cannot be reached, or refuses this client.
        """
        with translated("API keys"):
            text: Any = self._client.hget(keys.GATEWAY_KEYS, digest_of(secret))
        return AccessKey.decode(text) if text else None

    def all_keys(self) -> list[AccessKey]:
        """The records of all keys, the oldest first.

        Raises:
            BrokerUnavailable: Redis cannot be reached, or refuses this client.
        """
        with translated("API keys"):
            texts: Any = self._client.hvals(keys.GATEWAY_KEYS)
        return sorted(map(AccessKey.decode, texts), key=lambda key: (key.created, key.name))

    def revoked(self, key_ids: set[str]) -> set[str]:
        """Those of these keys that are let in no more.

        Raises:
            BrokerUnavailable: Redis cannot be reached, or refuses this client.
        """
        asked = key_ids - {LOCAL.id}
        return asked - {key.id for key in self.all_keys()} if asked else set()

    def has_keys(self) -> bool:
        """Whether there is any key.

        Raises:
            BrokerUnavailable: Redis cannot be reached, or refuses this client.
        """
        with translated("API keys"):
            count: Any = self._client.hlen(keys.GATEWAY_KEYS)
        return bool(count)

    def add_key(self, secret: str, key: AccessKey) -> None:
        """Let a key in.

        Raises:
            BrokerUnavailable: Redis cannot be reached, or refuses this client.
        """
        with translated("API keys"):
            self._client.hset(keys.GATEWAY_KEYS, digest_of(secret), key.encode())

    def revoke_key(self, key_id: str) -> bool:
        """Let a key in no more; its usage stays. Whether there was one.

        Raises:
            BrokerUnavailable: Redis cannot be reached, or refuses this client.
        """
        with translated("API keys"):
            found: Any = self._client.hgetall(keys.GATEWAY_KEYS)
            digests = [digest for digest in found if digest.decode().startswith(key_id)]
            return len(digests) == 1 and bool(self._client.hdel(keys.GATEWAY_KEYS, digests[0]))

    def usage(self, key_id: str) -> dict[str, int]:
        """Read the usage of a key.

        Raises:
            BrokerUnavailable: Redis cannot be reached, or refuses this client.
        """
        with translated("usage"):
            values: Any = self._client.hmget(keys.gateway_usage(key_id), COUNTERS)
        return {name: int(value or 0) for name, value in zip(COUNTERS, values, strict=True)}


def _names_of(key_id: str) -> tuple[str, str, str]:
    return keys.gateway_allowance(key_id), keys.gateway_open(key_id), keys.gateway_usage(key_id)

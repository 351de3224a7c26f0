"""The fleet as the sweep sees it: the workers that are registered, leased and connected at one time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from tasks.registry.values import json_object, number, text
from tasks.server import keys
from tasks.server.connection import translated
from tasks.sweep.watch import Look, Seen

if TYPE_CHECKING:
    import redis

    from tasks.registry import Registry


class FleetReader:
    """Reads records of any version, each once for each beat and not for each look.

    Args:
        client: answers in bytes.
        registry: has the leases and the connections.
    """

    def __init__(self, client: redis.Redis, registry: Registry) -> None:
        self._client = client
        self._registry = registry
        self._parsed: dict[bytes, tuple[bytes, Seen | None]] = {}

    def look(self) -> Look:
        """The fleet now.

        Raises:
            BrokerUnavailable: Redis cannot be reached or refuses for now.
        """
        with translated("looking at the fleet"):
            seconds, microseconds = self._client.time()
            at = time.monotonic()
            stored: Any = self._client.hgetall(keys.WORKERS)
        self._parsed = {node: self._parse(node, payload) for node, payload in stored.items()}
        workers = [worker for _, worker in self._parsed.values() if worker is not None]
        leases = self._registry.leases([seen.identity for seen in workers])
        connections = self._registry.connections(leases)
        workers = [Seen(seen.node, seen.boot, seen.beat_at, leases.get(seen.identity)) for seen in workers]
        return Look(at, seconds + microseconds / 1e6, workers, connections)

    def _parse(self, node: bytes, payload: bytes) -> tuple[bytes, Seen | None]:
        known = self._parsed.get(node)
        if known is not None and known[0] == payload:
            return known
        record = json_object(payload)
        boot, beat_at = record.get("boot"), number(record.get("beat_at"))
        if not isinstance(boot, str) or beat_at is None:
            return payload, None
        return payload, Seen(text(node), boot, beat_at, None)

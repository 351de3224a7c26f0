"""The lanes of workers: beside a queue's own lists, those in which requests wait for the worker where their prompt is warm.

The script that queues a request chooses the lane (``scripts/place.lua``). A worker takes from its own lane, from the queue's own
lists, and from a lane of others once a request has waited there for as long as it is worth, or its worker is gone. Which of these
comes first is decided by how long the next request of each has waited: what waits for another worker counts as if it had come
later by its wait. So no request waits longer than it would in one list, but for that wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tasks.broker import scripts
from tasks.broker.queues.queues import SEPARATOR
from tasks.broker.queues.references import with_references
from tasks.registry.values import text
from tasks.server import keys
from tasks.server.connection import translated
from tasks.server.script import Script
from worker_config.celeryconfig import PRIORITY_STEPS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import redis

LANES = Script(with_references("lanes"))
SERVE = Script(scripts.source("serve"))
WARM = Script(scripts.source("warm"))

#: A worker says so often that it takes requests from its lanes, and is believed for three times as long.
SERVE_S = 2.0
SILENT_S = 6.0
#: For how long a beginning counts as warm: engines forget the least used ones at some time.
WARM_S = 300


@dataclass(slots=True, frozen=True)
class Head:
    """The next request of a list: how long it has waited, and for how long only ``node`` takes it, both in seconds.

    ``node`` is empty where the list is a queue's own; ``length`` is the list's.
    """

    list_name: str
    node: str
    age_s: float
    wait_s: float
    length: int


class FleetLanes:
    """The lanes of the fleet, as one worker reads and writes them.

    Args:
        client: answers in bytes.
        identity: ``node#boot`` of the worker.
        slots: how many requests of each queue that it consumes now it runs at once.

    Every method raises :class:`tasks.errors.BrokerUnavailable` when Redis cannot be reached or refuses for now.
    """

    def __init__(self, client: redis.Redis, identity: str, slots: Callable[[], Mapping[str, int]]) -> None:
        self._client = client
        self._identity = identity
        self._node = identity.rpartition("#")[0]
        self._slots = slots

    def heads(self) -> list[Head]:
        """The lanes of this worker's queues that are not empty, and the queues' own lists beside them; nothing where none is."""
        told = (SEPARATOR, str(SILENT_S), ",".join(map(str, PRIORITY_STEPS)), *self._slots())
        with translated("reading the lanes"):
            flat: Any = LANES(self._client, (keys.ASIDE, keys.LEDGER, keys.AFFINITY_WORKERS), told)
        return [
            Head(text(name), text(node), int(age_ms) / 1000, int(wait_ms) / 1000, int(length))
            for name, node, age_ms, wait_ms, length in zip(*(flat[start::5] for start in range(5)), strict=True)
        ]

    def serve(self) -> None:
        """Say that this worker takes requests from its lanes."""
        queues = "".join(f"|{queue}={count}" for queue, count in self._slots().items())
        with translated("announcing the lanes"):
            SERVE(self._client, (keys.AFFINITY_WORKERS,), (self._node, f"{self._identity} {queues}|"))

    def leave(self) -> None:
        """Say that it does so no more."""
        leave(self._client, self._node)

    def note_warm(self, waits_ms: Mapping[str, int]) -> None:
        """Note, by digest, that prompts with these beginnings are warm here, and for how long a request is worth waiting."""
        with translated("noting what is warm"):
            WARM(self._client, [keys.warm(digest) for digest in waits_ms], (self._node, WARM_S, *waits_ms.values()))


def leave(client: redis.Redis, node: str) -> None:
    """A worker takes nothing more from its lanes: what waits there is everybody's.

    Raises:
        BrokerUnavailable: Redis cannot be reached or refuses for now.
    """
    with translated(f"closing the lanes of {node}"):
        client.hdel(keys.AFFINITY_WORKERS, node)

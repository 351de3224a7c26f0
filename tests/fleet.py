"""What the tests of the registry, the sweep and the fleet share: workers that exist in Redis alone."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any, Self

from tasks.broker.queues.references import REFERENCE
from tasks.messages.registry import WorkerRecord
from tasks.names import GENERATE
from tasks.registry import Grace, Registry
from tasks.registry.lifeline import Lifeline
from tasks.server import keys

if TYPE_CHECKING:
    import redis

#: Longer than any test runs: these workers say nothing of themselves.
LEASE_MS = 600_000


#: A test's server is young: looked at as if it were not.
NO_GRACE = Grace(restarted_s=0.0, reconnected_s=0.0)


def record(node: str = "mac@lab", boot: str = "b1", **values: Any) -> WorkerRecord:
    """A worker's record."""
    return WorkerRecord(node=node, boot=boot, **{"status": "online", "queues": ["tier-3-7B"], **values})


class Ghost:
    """A registered worker with a connection of its own, and nothing else. A context manager that closes it."""

    def __init__(self, client: redis.Redis, node: str = "mac@lab", boot: str = "b1", lease_ms: int = LEASE_MS) -> None:
        self.record = record(node, boot)
        self.identity = self.record.identity
        self.registry = Registry(client, NO_GRACE)
        self.lifeline = Lifeline(client, self.identity)
        self.lifeline.connect()
        self.registry.register(self.record, lease_ms, client_id=self.lifeline.client_id)

    def beat(self, lease_ms: int = LEASE_MS) -> str:
        """One heartbeat; what it found."""
        return self.registry.beat(self.record, lease_ms, client_id=self.lifeline.client_id).answer

    def die(self) -> None:
        """As kill -9 would: the connection is closed, and nothing is said."""
        self.lifeline.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.lifeline.close()


def message(task_id: str, queue: str = "tier-3-7B", priority: int = 0, task: str = GENERATE) -> dict[str, Any]:
    """A task's message as Celery and kombu queue it."""
    return {
        "body": "W10=",
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": task, "id": task_id},
        "properties": {
            "correlation_id": task_id,
            "priority": priority,
            "delivery_tag": str(uuid.uuid4()),
            "delivery_info": {"exchange": "", "routing_key": queue},
        },
    }


def hold(client: redis.Redis, identity: str, messages: list[dict[str, Any]]) -> None:
    """Note messages as fetched and unacknowledged, as kombu does; the first is the oldest."""
    for age, message in enumerate(messages):
        tag = message["properties"]["delivery_tag"]
        info = message["properties"]["delivery_info"]
        client.hset(keys.unacked(identity), tag, json.dumps([message, info["exchange"], info["routing_key"]]))
        client.zadd(keys.unacked_index(identity), {tag: 1000.0 + age})


def fetch_all(client: redis.Redis, name: str) -> list[str]:
    """The task ids in a list, in the order in which workers would take them."""
    found: Any = client.lrange(name, 0, -1)
    return [id_of(item) for item in reversed(found)]


def id_of(item: bytes | str) -> str:
    """The task id of an item of a list: of a reference to a message, or of a message."""
    text = item.decode() if isinstance(item, bytes) else item
    return text.removeprefix(REFERENCE) if text.startswith(REFERENCE) else str(json.loads(text)["headers"]["id"])


def waiting_messages(client: redis.Redis, name: str) -> list[dict[str, Any]]:
    """The messages to which the references in a list lead, the newest first."""
    found: Any = client.lrange(name, 0, -1)
    entries: Any = client.hmget(keys.LEDGER, [id_of(item) for item in found])
    return [json.loads(json.loads(entry)["message"]) for entry in entries]

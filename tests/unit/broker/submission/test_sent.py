"""What a process has queued is kept for a while, within a bound of bytes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, cast

from tasks.broker.submission.put import Put, destination
from tasks.broker.submission.sent import Sent
from tasks.broker.submission.terms import Terms

if TYPE_CHECKING:
    import redis


def put(task_id: str, padding: int = 0) -> Put:
    message = {"headers": {"id": task_id}, "properties": {}, "body": "x" * padding}
    return Put.of(message, destination("q", 0), Terms(floor=8, fingerprint="asked"))


class Client:
    """A server that knows some keys, and notes what is queued."""

    def __init__(self, *known: str) -> None:
        self.known = known
        self.queued: list[str] = []

    def exists(self, name: str) -> int:
        return int(any(name.endswith(known) for known in self.known))

    def evalsha(self, _digest: str, _count: int, *values: Any) -> list[Any]:
        self.queued.append(values[6])
        return []


def send_again(sent: Sent, client: Client, task_id: str, looked_at: float | None = None) -> bool:
    looked_at = time.monotonic() if looked_at is None else looked_at
    return sent.send_again(cast("redis.Redis", client), task_id, looked_at)


def test_once() -> None:
    """A request that Redis has lost is sent again, and not a second time: then something else is wrong with it."""
    sent, client = Sent(), Client()
    sent.note(put("t1"))
    assert send_again(sent, client, "t1")
    assert not send_again(sent, client, "t1")
    assert len(client.queued) == 1


def test_two_readers() -> None:
    """A reader whose look began before another one has sent it again hears that it was sent, and no reader that looked later."""
    sent, client = Sent(), Client()
    sent.note(put("t1"))
    looked_at = time.monotonic()
    assert [send_again(sent, client, "t1", looked_at) for _ in range(2)] == [True, True]
    assert not send_again(sent, client, "t1")
    assert not send_again(sent, client, "t2", looked_at)
    assert len(client.queued) == 1


def test_not_what_was_deleted() -> None:
    """Redis has its fingerprint, so nothing was lost: its result was forgotten, or has expired."""
    sent, client = Sent(), Client("t1")
    sent.note(put("t1"))
    assert not send_again(sent, client, "t1")
    assert not send_again(sent, client, "of another process")
    assert not client.queued


def test_bounds() -> None:
    """The oldest make room, by bytes and by age; a request that is sent twice is kept once."""
    sent = Sent(most_bytes=2_500)
    for task_id in ("t1", "t2", "t2", "t3"):
        sent.note(put(task_id, 1_000))
    assert len(sent) == 2
    assert not send_again(sent, Client(), "t1")
    assert send_again(sent, Client(), "t3")
    aged = Sent(keep_s=-1.0)
    aged.note(put("t1"))
    assert not len(aged)

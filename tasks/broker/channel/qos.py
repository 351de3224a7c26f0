"""The messages that a worker has fetched and not acknowledged, and their acknowledgement, rejection and requeue."""

from __future__ import annotations

from typing import Any

from kombu.transport import redis as stock
from kombu.transport import virtual
from kombu.utils.json import dumps

from tasks.broker import scripts
from tasks.names import is_ours
from tasks.server import keys
from tasks.server.script import Script

HOLD = Script(scripts.source("holding") + scripts.source("hold"))
DROP = Script(scripts.source("drop"))
REGAIN = Script(scripts.source("holding") + scripts.source("regain"))


class QoS(stock.QoS):
    """Unacknowledged messages of one worker, which nobody but the sweep returns while their tasks run.

    An application's worker with a pool of Celery's has no record and no lease, so the sweep does not know it. Its messages are
    counted by Celery's prefetch and return by kombu's visibility time-out.
    """

    def can_consume(self) -> bool:
        """Always for a worker of the fleet: room is decided where the queues are named."""
        return self._is_fleets or bool(super().can_consume())

    def restore_visible(self, start: int = 0, num: int | None = 10, interval: int | None = 10) -> None:
        """Nothing of a worker of the fleet is restored by age: a generation of an hour would run twice.

        Nor does `celery inspect` restore anything, which has no right to. Kombu's method holds a lock. A worker that is killed
        meanwhile leaves it for five minutes, in which no other worker restores anything. Without it a message returns once, too,
        however many restore it. Ages are by Redis's clock, since HOLD notes its time.
        """
        if not self.channel.acknowledges or self._is_fleets:
            return
        self._vrestore_count += 1
        if (self._vrestore_count - 1) % (interval or 1):
            return
        with self.channel.conn_or_acquire() as client:
            latest = client.time()[0] - self.visibility_timeout
            offset = start if num else None
            for tag in client.zrange(self.unacked_index_key, 0, latest, byscore=True, offset=offset, num=num):
                self.restore_by_tag(tag, client)

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Restore at the end of the worker; a worker of the fleet forgets, without restoring, when a connection was lost."""
        if self.channel.holding.stopping or not self._is_fleets:
            super().restore_unacked_once(stderr)
            return
        self._on_collect.cancel()
        self._flush()
        self._delivered.clear()
        self._delivered.restored = True

    @property
    def _is_fleets(self) -> bool:
        return bool(self.channel.holding.identity)

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a message that was fetched: in one call, where kombu makes a transaction of four."""
        if delivery_tag in self.channel.holding.taken:
            self.channel.holding.taken.discard(delivery_tag)
        else:
            self.hold(delivery_tag, noted(message))
        virtual.QoS.append(self, message, delivery_tag)

    def hold(self, delivery_tag: str, text: str) -> None:
        """Note in Redis that this worker holds a message."""
        identity = self.channel.holding.identity
        owners = (keys.OWNERS,) if identity else ()
        HOLD(
            self.channel.evaluator, (self.unacked_key, self.unacked_index_key, *owners), (delivery_tag, text, identity)
        )

    def regain(self, message: Any) -> None:
        """Note again a message that is about to be given back, if Redis came back older and knows nothing of its request."""
        headers = message.headers or {}
        task_id = headers.get("id")
        if not (self._is_fleets and is_ours(headers.get("task")) and isinstance(task_id, str)):
            return
        known = (keys.OWNERS, keys.LEDGER, keys.stream(task_id), keys.collected(task_id))
        REGAIN(
            self.channel.evaluator,
            (self.unacked_key, self.unacked_index_key, *known),
            (message.delivery_tag, noted(message), self.channel.holding.identity, task_id),
        )

    def drop(self, delivery_tag: str) -> None:
        """Note in Redis that this worker holds a message no more."""
        DROP(self.channel.evaluator, (self.unacked_key, self.unacked_index_key), (delivery_tag,))

    def ack(self, delivery_tag: str) -> None:
        """Forget a message that was answered, unless that has been done."""
        if delivery_tag in self.channel.holding.answered:
            self.channel.holding.answered.discard(delivery_tag)
        else:
            self.drop(delivery_tag)
        virtual.QoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Drop a message, or give it back to the front of its queue."""
        if not requeue or delivery_tag in self.channel.holding.answered:
            self.ack(delivery_tag)
            return
        self.restore_by_tag(delivery_tag, leftmost=False)  # kombu pops from the right, so "leftmost" is the back
        self.channel.holding.aside.pop(delivery_tag, None)
        virtual.QoS.ack(self, delivery_tag)


def noted(message: Any) -> str:
    """A message as Redis keeps it while a worker holds it."""
    info = message.delivery_info
    return str(dumps([message._raw, info.get("exchange"), info.get("routing_key")]))

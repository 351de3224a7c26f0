"""What a worker holds: the messages that it has fetched and not acknowledged, and what becomes of each."""

from __future__ import annotations

from typing import Any, ClassVar

from kombu.transport import redis as stock
from kombu.transport import virtual
from kombu.utils.json import dumps

from tasks.broker import scripts
from tasks.server.script import Script

HOLD = Script(scripts.source("hold"))
DROP = Script(scripts.source("drop"))


class QoS(stock.QoS):
    """Unacknowledged messages of one worker, which nobody but the sweep returns while their tasks run."""

    #: Set by the worker once nothing runs any more: what is left then is given back by kombu itself.
    stopping: ClassVar[bool] = False
    #: The models that messages, by their delivery tags, are set aside for when they are given back.
    aside: ClassVar[dict[str, str]] = {}
    #: Delivery tags of messages that were forgotten together with their results being stored (:mod:`tasks.broker.results`).
    answered: ClassVar[set[str]] = set()
    #: Delivery tags of messages that were noted by the very script that took them.
    taken: ClassVar[set[str]] = set()

    def can_consume(self) -> bool:
        """Always: room is decided where the queues are named."""
        return True

    def restore_visible(self, *_args: Any, **_options: Any) -> None:
        """Nothing is restored by age: a generation of an hour would run twice."""

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Restore at the end of the worker; forget, without restoring, when a connection was lost."""
        if QoS.stopping:
            super().restore_unacked_once(stderr)
            return
        self._on_collect.cancel()
        self._flush()
        self._delivered.clear()
        self._delivered.restored = True

    def append(self, message: Any, delivery_tag: str) -> None:
        """Note a message that was fetched: in one call, where kombu makes a transaction of four."""
        if delivery_tag in self.taken:
            self.taken.discard(delivery_tag)
        else:
            info = message.delivery_info
            held = dumps([message._raw, info["exchange"], info["routing_key"]])
            HOLD(self.channel.evaluator, (self.unacked_key, self.unacked_index_key), (delivery_tag, held))
        virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        """Forget a message that was answered, unless that has been done."""
        if delivery_tag in self.answered:
            self.answered.discard(delivery_tag)
        else:
            DROP(self.channel.evaluator, (self.unacked_key, self.unacked_index_key), (delivery_tag,))
        virtual.QoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Drop a message, or give it back to the front of its queue."""
        if not requeue or delivery_tag in self.answered:
            self.ack(delivery_tag)
            return
        self.restore_by_tag(delivery_tag, leftmost=False)  # kombu pops from the right, so "leftmost" is the back
        self.aside.pop(delivery_tag, None)
        virtual.QoS.ack(self, delivery_tag)


def set_aside(delivery_tag: str, model: str) -> None:
    """When the message of this tag is given back, put it where requests for this model wait."""
    QoS.aside[delivery_tag] = model

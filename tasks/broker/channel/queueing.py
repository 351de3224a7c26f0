"""Queues, schedules, sets aside, requeues and purges messages, each with an entry in the ledger."""

from __future__ import annotations

from os import urandom
from time import time
from typing import TYPE_CHECKING, Any

from celery._state import get_current_app
from kombu.utils.json import dumps

from tasks.broker.channel.connecting import ConnectingChannel
from tasks.broker.channel.qos import QoS
from tasks.broker.message.message import MAX_MESSAGE_BYTES, Message, require_size
from tasks.broker.queues.queues import aside_list
from tasks.broker.queues.references import with_references
from tasks.broker.queues.schedule import POSTPONE, due_at
from tasks.broker.submission.put import PUT, Put, call_of, destination, queue_one, refusal
from tasks.broker.submission.sending import send_twice
from tasks.broker.submission.sent import SENT
from tasks.broker.submission.terms import Terms, terms_of
from tasks.names import is_ours
from tasks.server import keys
from tasks.server.script import Script

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery


#: The header of a message that was set aside before.
ASIDE = "set_aside"

SCHEDULE = Script(with_references("schedule"))


class QueueingChannel(ConnectingChannel):
    """A channel that writes the ledger."""

    QoS = QoS
    Message = Message

    def _put(self, queue: str, message: dict[str, Any], **options: Any) -> None:
        """Queue a message; a generation is written into the ledger with it."""
        headers = message.get("headers") or {}
        if not is_ours(headers.get("task")) or options.get("_publish_batch") is not None:
            super()._put(queue, message, **options)
            return
        delay_s = (due_at(headers) or 0.0) - time()
        terms = terms_of(message, self.settings)
        with self.conn_or_acquire() as client:
            if delay_s <= 0:
                put = Put.of(message, destination(queue, self._priority(message)), terms)
                require_size("the request's message", len(put.text), MAX_MESSAGE_BYTES)
                error = self._send(lambda: queue_one(client, put), f"request {put.task_id}")
                if error is None and self.holding.scripts is None:
                    SENT.note(put)
            else:
                reply = self._schedule(client, queue, message, delay_s, terms)
                error = refusal(reply, str(headers["id"]), f"are scheduled for {queue}") if reply else None
        if error is not None:
            raise error

    def _schedule(self, client: Any, queue: str, message: dict[str, Any], delay_s: float, terms: Terms) -> Any:
        """Have a request wait for its time, by Redis's clock. Queued then, it names no time any more: clocks differ."""
        own = self._q_for_pri(queue, self._priority(message))
        text = dumps(_without_eta(message))
        require_size("the request's message", len(text), MAX_MESSAGE_BYTES)
        task_id = message["headers"]["id"]
        names = (keys.LEDGER, keys.LIMITS, keys.scheduled(queue), keys.request(task_id))
        floor = "" if terms.floor is None else terms.floor
        arguments = (text, task_id, own, queue, floor, f"{delay_s:.6f}", terms.fingerprint, terms.kept_s)
        return self._send(lambda: SCHEDULE(client, names, arguments), f"request {task_id}")

    def _put_fanout(self, *args: Any, **options: Any) -> None:
        self._send(lambda: super(QueueingChannel, self)._put_fanout(*args, **options), "a command to the workers")

    def _send(self, send: Callable[[], Any], about: str) -> Any:
        """Send once in a worker, where kombu tries again, and twice in a producer, where kombu would try without a bound."""
        return send() if self.holding.scripts is not None else send_twice(send, about)

    def postpone(self, message: Any) -> bool:
        """Have a message that was fetched, and names a time, wait for it in Redis; ``False`` if it is due."""
        at = due_at(message.headers)
        if at is None:
            return False
        raw, info = message._raw, message.delivery_info
        (queue, *_) = self._lookup(info["exchange"], info["routing_key"])
        own = self._q_for_pri(queue, self._priority(raw))
        task_id = raw["headers"]["id"] if is_ours(raw["headers"].get("task")) else ""
        names = (self.unacked_key, self.unacked_index_key, keys.scheduled(queue), keys.LEDGER)
        arguments = (message.delivery_tag, own, dumps(_without_eta(raw)), f"{at:.6f}", task_id)
        return bool(POSTPONE(self.evaluator, names, arguments))

    def _priority(self, message: dict[str, Any]) -> int:
        return int(self._get_message_priority(message, reverse=False))

    def queue_delete(self, queue: str, if_unused: bool = False, if_empty: bool = False, **options: Any) -> int:
        """Purge a queue of tasks, then forget it. Queues of replies, which delete themselves, are kombu's own affair."""
        is_of_tasks = queue not in self.auto_delete_queues and queue not in self._fanout_queues
        purged = self._purge(queue) if is_of_tasks and not if_empty else 0
        super().queue_delete(queue, if_unused=if_unused, if_empty=if_empty, **options)
        return purged

    def _purge(self, queue: str) -> int:
        """Empty a queue for good; how many messages that were."""
        from tasks.broker.inventory.purge import purge_queue  # a producer hardly ever needs it

        with self.conn_or_acquire() as client:
            return purge_queue(client, queue, self._app())

    def _app(self) -> Celery | None:
        """The application that this connection belongs to, if that can be told."""
        app = get_current_app()
        return app if app.connection_for_write().as_uri(include_password=True) == self._server else None

    def _do_restore_message(
        self, payload: dict[str, Any], exchange: str, routing_key: str, pipe: Any, leftmost: bool = False
    ) -> None:
        """Queue a message again, or set it aside; a generation is missed like a new one, should it be lost on its way."""
        headers = payload.get("headers") or {}
        if not is_ours(headers.get("task")):
            super()._do_restore_message(payload, exchange, routing_key, pipe, leftmost)
            return
        headers["redelivered"] = True
        properties = payload.setdefault("properties", {})
        properties.setdefault("delivery_info", {})["redelivered"] = True
        model = self.holding.aside.get(properties.get("delivery_tag", ""))
        # This worker may fetch it again, behind others: what it knows of this delivery must not be taken for that one's.
        properties["delivery_tag"] = urandom(16).hex()
        push = "LPUSH" if leftmost else "RPUSH"
        if model is not None:
            # The first time it is younger than what is aside already; later it has just come from the front.
            push = "RPUSH" if headers.get(ASIDE) else "LPUSH"
            headers[ASIDE] = True
        for queue in self._lookup(exchange, routing_key):
            priority = self._priority(payload)
            aside = "" if model is None else aside_list(queue, priority, model)
            call = call_of([Put.of(payload, destination(queue, priority, push=push, aside=aside), Terms())])
            pipe.eval(PUT.source, len(call.names), *call.names, *call.arguments)


def _without_eta(message: dict[str, Any]) -> dict[str, Any]:
    return {**message, "headers": {**message["headers"], "eta": None}}

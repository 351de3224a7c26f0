"""Celery's consumer, which no message can bring down: one that cannot be understood is dropped, with one clear error.

Celery's own answers write the whole message into the log, leave a reader of the stream waiting, and let whatever a wrong type
raises end the worker.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery.worker.consumer import Consumer as CeleryConsumer
from kombu.exceptions import ContentDisallowed, DecodeError

from tasks.broker.message import envelope
from tasks.broker.message.message import blames_message, fault
from tasks.errors import InvalidRequest
from tasks.names import OURS, is_ours
from tasks.worker.unstarted import refuse_message

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger(__name__)


class Consumer(CeleryConsumer):
    """Refuses messages that are no task of this worker."""

    def create_task_handler(self, *args: Any, **options: Any) -> Callable[[Any], None]:
        """Return Celery's handler, behind a check of the types that it takes for granted."""
        receive = super().create_task_handler(*args, **options)

        def on_message(message: Any) -> None:
            try:
                if is_ours(message.headers.get("task")):
                    envelope.check(message.headers, message.payload)
                if not self._postponed(message):
                    receive(message)
            except InvalidRequest as error:
                self._refuse(message, str(error))
            except (DecodeError, ContentDisallowed) as error:
                self.on_decode_error(message, error)
            except Exception as error:
                if not blames_message(error, self):
                    raise
                self._refuse(message, f"its message cannot be understood ({fault(error)})")

        return on_message

    def _postponed(self, message: Any) -> bool:
        """Whether a message names a time (``countdown``) that has not come: Redis keeps it, and Celery does not hear of it."""
        if message.headers.get("eta") is None:
            return False
        if message.channel.postpone(message):
            message.channel.holding.answered.add(message.delivery_tag)
            message.ack()
            return True
        message.headers["eta"] = None  # due by Redis's clock, whatever this machine's says
        return False

    def bucket_for_task(self, task: Any) -> Any:
        """No rate limits for requests: Celery would fetch and hold them, and run them beyond the slots."""
        if is_ours(task.name):
            if task.rate_limit:
                logger.warning("rate_limit=%r of %s is ignored: its slots are its limit", task.rate_limit, task.name)
            return None
        return super().bucket_for_task(task)

    def add_task_queue(self, queue: str, *args: Any, **options: Any) -> None:
        """Celery's own; it runs in a turn of the worker's loop, which an exception would end."""
        try:
            super().add_task_queue(queue, *args, **options)
        except Exception as error:
            if not blames_message(error, self):
                raise
            self._forget_queue(queue, error)

    def _forget_queue(self, queue: str, error: Exception) -> None:
        """Deselect a queue, or the next connection would try to consume it again."""
        self.app.amqp.queues.deselect(queue)
        logger.error("queue %r cannot be consumed: %r", queue, error)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Not JSON, or of a content type that is not taken."""
        self._refuse(message, f"its message cannot be decoded ({type(exc).__name__})")

    def on_unknown_message(self, _body: Any, message: Any) -> None:
        """Not a message of Celery."""
        self._refuse(message, "its message is not one of Celery's protocol 2: headers.task and headers.id are missing")

    def on_unknown_task(self, _body: Any, message: Any, _exc: Exception) -> None:
        """A task that this worker does not have."""
        self._refuse(
            message,
            f"no task {message.headers['task']!r:.100} here: this one has {', '.join(sorted(OURS))}; a task of another "
            f"application belongs into a queue of its own, other than {self.app.conf.task_default_queue} (task_default_queue)",
        )

    def on_invalid_task(self, _body: Any, message: Any, exc: Exception) -> None:
        """One of our tasks, with headers that Celery refuses."""
        self._refuse(message, f"its message cannot be understood ({exc})"[:300])

    def _refuse(self, message: Any, why: str) -> None:
        refuse_message(envelope.task_id_of({"headers": message.headers}), why)
        if not message.acknowledged:
            message.reject_log_error(logger, self.connection_errors)

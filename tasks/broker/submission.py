"""Requests that go to Redis together: many in one round trip, where a request that is sent alone takes one of its own.

Building a message and sending it are two steps. :class:`Collector` builds: Celery hands it what it would hand to kombu's
producer. :class:`Submission` sends.
"""

from __future__ import annotations

import uuid
from base64 import b64encode
from contextlib import closing
from typing import TYPE_CHECKING, Any

from kombu.serialization import dumps as serialize

from tasks.broker.message import MAX_MESSAGE_BYTES, require_size
from tasks.broker.put import PUT, Put
from tasks.broker.queues import list_of, lists_of
from tasks.broker.sending import send_twice
from tasks.broker.sent import SENT
from tasks.broker.terms import terms_of
from tasks.errors import GenerationError
from tasks.server.connection import connect
from worker_config.celeryconfig import settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import redis
    from celery import Celery

#: The bounds of one round trip: Redis runs its commands one after another, and does nothing else meanwhile.
MOST_REQUESTS = 200
MOST_BYTES = 2**20


class Submission:
    """Requests that have been built, and are sent together.

    Args:
        app: where requests are sent.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._settings = settings_of(app)
        self._puts: list[Put] = []
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._puts)

    @property
    def is_full(self) -> bool:
        """Whether it is as much as goes out in one round trip, so that nothing is gained by waiting for more."""
        return len(self._puts) >= MOST_REQUESTS or self._bytes >= MOST_BYTES

    def add(self, message: dict[str, Any], queue: str) -> None:
        """Have this message sent, too.

        Raises:
            InvalidRequest: it is too large.
        """
        own = list_of(queue, message["properties"]["priority"])
        lists = [own, *(name for name in lists_of(queue) if name != own)]
        put = Put.of(message, queue, lists, "LPUSH", terms_of(message, self._settings))
        require_size("the request's message", len(put.text), MAX_MESSAGE_BYTES)
        self._puts.append(put)
        self._bytes += len(put.text)

    def clear(self) -> list[str]:
        """Send nothing of it; the ids of its requests."""
        puts, self._puts, self._bytes = self._puts, [], 0
        return [put.task_id for put in puts]

    def send(self, client: redis.Redis | None = None) -> None:
        """Queue them, in order, until one is refused.

        Args:
            client: a client of the broker's; without it a connection is made.

        Raises:
            Refused: one cannot be queued. Those that have been queued stay so.
        """
        puts, self._puts, self._bytes = self._puts, [], 0
        if not puts:
            return
        if client is not None:
            _send(client, puts)
            return
        with closing(connect(self._app)) as own:
            _send(own, puts)


class Refused(Exception):
    """A request cannot be queued because of ``error``; the requests ``unsent`` are in no queue."""

    def __init__(self, error: GenerationError, unsent: list[str]) -> None:
        super().__init__(str(error))
        self.error = error
        self.unsent = unsent


class Collector:
    """What Celery takes for a producer of kombu's: it builds messages, and leaves it to a submission to send them.

    A message that waits for its time, goes by an exchange or is compressed is sent by the producer itself, at once.

    Args:
        app: where requests are sent.
        producer: kombu's.
    """

    def __init__(self, app: Celery, producer: Any) -> None:
        self.submission = Submission(app)
        self._producer = producer
        self._declared: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def publish(self, body: Any, **given: Any) -> None:
        """Build the message that kombu would send."""
        headers = given["headers"]
        if given["exchange"] or headers.get("eta") or given.get("compression"):
            self._producer.publish(body, **given)
            return
        queue = given["routing_key"]
        for entity in given.get("declare") or ():
            if entity.name not in self._declared:
                self._producer.maybe_declare(entity)
                self._declared.add(entity.name)
        properties = {name: value for name, value in given.items() if name not in _NO_PROPERTIES}
        if given.get("expiration") is not None:
            properties["expiration"] = str(int(given["expiration"] * 1000))
        self.submission.add(written(body, headers, properties, queue), queue)


#: Arguments of kombu's ``publish`` that say how a message is sent, and are no part of it.
_NO_PROPERTIES = frozenset(
    {
        *("exchange", "routing_key", "serializer", "compression", "retry", "retry_policy", "declare", "headers"),
        *("timeout", "confirm_timeout", "expiration", "mandatory", "immediate"),
    }
)


def written(body: Any, headers: dict[str, Any], properties: dict[str, Any], queue: str) -> dict[str, Any]:
    """A message as kombu writes it into a queue.

    Args:
        body: the arguments, the keywords and what follows the task.
        headers: Celery's.
        properties: further fields, such as ``correlation_id`` and ``priority``.
        queue: where it goes.
    """
    content_type, content_encoding, text = serialize(body, serializer="json")
    return {
        "body": b64encode(text.encode()).decode(),
        "content-encoding": content_encoding,
        "content-type": content_type,
        "headers": headers,
        "properties": {
            "delivery_mode": 2,
            **properties,
            "priority": properties.get("priority") or 0,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }


def _send(client: redis.Redis, puts: list[Put]) -> None:
    unsent = dict.fromkeys(put.task_id for put in puts)
    for page in _pages(puts):
        try:
            error = _send_page(client, page, unsent)
        except GenerationError as trouble:
            error = trouble
        if error is not None:
            raise Refused(error, list(unsent))


def _send_page(client: redis.Redis, page: Sequence[Put], unsent: dict[str, None]) -> GenerationError | None:
    """Queue what fits into one round trip; the first refusal of it."""

    def execute() -> list[Any]:
        with client.pipeline(transaction=False) as pipeline:
            # The server may have been restarted since, or be another one.
            pipeline.script_load(PUT.source)
            for put in page:
                pipeline.evalsha(PUT.digest, len(put.names), *put.names, *put.arguments)
            return pipeline.execute()

    replies = send_twice(execute, f"{len(page)} requests")[1:]
    first: GenerationError | None = None
    for put, reply in zip(page, replies, strict=True):
        error = put.refusal(reply)
        if error is None:
            unsent.pop(put.task_id, None)
            SENT.note(put)
        first = first or error
    return first


def _pages(puts: Sequence[Put]) -> Iterator[list[Put]]:
    page: list[Put] = []
    page_bytes = 0
    for put in puts:
        if page and (len(page) == MOST_REQUESTS or page_bytes + len(put.text) > MOST_BYTES):
            yield page
            page, page_bytes = [], 0
        page.append(put)
        page_bytes += len(put.text)
    if page:
        yield page

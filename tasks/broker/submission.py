"""Requests that go to Redis together: many in one round trip, where a request that is sent alone takes one of its own.

Building a message and sending it are two steps. :class:`Collector` builds: Celery hands it what it would hand to kombu's
producer. :class:`Submission` sends.
"""

from __future__ import annotations

import uuid
from base64 import b64encode
from contextlib import closing
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from celery.utils.nodenames import anon_nodename

from tasks.broker.declared import Declared
from tasks.broker.message import MAX_MESSAGE_BYTES, message_text, require_size
from tasks.broker.put import PUT, Put, call_of, destination
from tasks.broker.sending import send_twice
from tasks.broker.sent import SENT
from tasks.broker.terms import terms_in
from tasks.errors import GenerationError
from tasks.server.connection import connect
from worker_config.celeryconfig import settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import redis
    from celery import Celery

    from worker_config.settings import Settings

#: The bounds of one round trip.
MOST_REQUESTS = 200
MOST_BYTES = 2**20
#: The bounds of one call of put.lua: Redis does nothing else meanwhile.
MOST_IN_SCRIPT = 50
MOST_BYTES_IN_SCRIPT = 2**18


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

    def add(self, body: Any, headers: dict[str, Any], properties: dict[str, Any], queue: str) -> None:
        """Have a request sent, too.

        Args:
            body: the arguments, the keywords and what follows the task.
            headers: Celery's.
            properties: further fields, such as ``correlation_id`` and ``priority``.
            queue: where it goes.

        Raises:
            InvalidRequest: it is too large.
        """
        put = put_of(body, headers, properties, queue, self._settings)
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
        #: Who sends, as Celery says it in each message.
        self.origin = anon_nodename()
        #: Whether messages are built without Celery, once that is known.
        self.is_plain: bool | None = None
        self._producer = producer
        self._declared = Declared()

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
            self._declared.once(entity, self._producer.maybe_declare)
        properties = {name: value for name, value in given.items() if name not in _NO_PROPERTIES}
        if given.get("expiration") is not None:
            properties["expiration"] = str(int(given["expiration"] * 1000))
        self.submission.add(body, headers, properties, queue)


#: Arguments of kombu's ``publish`` that say how a message is sent, and are no part of it.
_NO_PROPERTIES = frozenset(
    {
        *("exchange", "routing_key", "serializer", "compression", "retry", "retry_policy", "declare", "headers"),
        *("timeout", "confirm_timeout", "expiration", "mandatory", "immediate"),
    }
)


def put_of(body: Any, headers: dict[str, Any], properties: dict[str, Any], queue: str, settings: Settings) -> Put:
    """A request with the message that kombu would write; the first arguments are those of :meth:`Submission.add`.

    Raises:
        InvalidRequest: it is too large.
    """
    text = message_text(body)
    priority = properties.get("priority") or 0
    message = {
        "body": b64encode(text.encode()).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": {
            "delivery_mode": 2,
            **properties,
            "priority": priority,
            "delivery_info": {"exchange": "", "routing_key": queue},
            "body_encoding": "base64",
            "delivery_tag": str(uuid.uuid4()),
        },
    }
    put = Put.of(message, destination(queue, priority), terms_in(text, properties, settings))
    require_size("the request's message", len(put.text), MAX_MESSAGE_BYTES)
    return put


def _send(client: redis.Redis, puts: list[Put]) -> None:
    unsent = dict.fromkeys(put.task_id for put in puts)
    for page in _pages(puts, MOST_REQUESTS, MOST_BYTES):
        try:
            error = _send_page(client, page, unsent)
        except GenerationError as trouble:
            error = trouble
        if error is not None:
            raise Refused(error, list(unsent))


def _send_page(client: redis.Redis, page: Sequence[Put], unsent: dict[str, None]) -> GenerationError | None:
    """Queue what fits into one round trip; the first refusal of it."""
    batches = [
        batch
        for _, alike in groupby(page, key=attrgetter("alike"))
        for batch in _pages(list(alike), MOST_IN_SCRIPT, MOST_BYTES_IN_SCRIPT)
    ]

    def execute() -> list[Any]:
        with client.pipeline(transaction=False) as pipeline:
            # The server may have been restarted since, or be another one.
            pipeline.script_load(PUT.source)
            for batch in batches:
                call = call_of(batch)
                pipeline.evalsha(PUT.digest, len(call.names), *call.names, *call.arguments)
            return pipeline.execute()

    replies = send_twice(execute, f"{len(page)} requests")[1:]
    first: GenerationError | None = None
    for batch, reply in zip(batches, replies, strict=True):
        queued = batch if not reply else batch[: reply[0] - 1]
        for put in queued:
            unsent.pop(put.task_id, None)
            SENT.note(put)
        if reply and first is None:
            first = batch[len(queued)].refusal(reply[1:])
    return first


def _pages(puts: Sequence[Put], most: int, most_bytes: int) -> Iterator[list[Put]]:
    page: list[Put] = []
    page_bytes = 0
    for put in puts:
        if page and (len(page) == most or page_bytes + len(put.text) > most_bytes):
            yield page
            page, page_bytes = [], 0
        page.append(put)
        page_bytes += len(put.text)
    if page:
        yield page

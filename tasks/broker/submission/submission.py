"""Requests that go to Redis together: many in one round trip, where a request that is sent alone takes one of its own.

Building a message and sending it are two steps. :class:`Collector` builds: Celery hands it what it would hand to kombu's
producer. :class:`Submission` sends.
"""

from __future__ import annotations

from base64 import b64encode
from contextlib import closing
from os import urandom
from typing import TYPE_CHECKING, Any, NamedTuple

from celery.utils.nodenames import anon_nodename

from tasks.broker.message.message import MAX_MESSAGE_BYTES, message_text, plain_text, require_size
from tasks.broker.submission.declared import Declared
from tasks.broker.submission.pages import MOST_BYTES_UNDER_WAY, MOST_UNDER_WAY, Refused, UnderWay, send_pages
from tasks.broker.submission.put import Put, destination
from tasks.broker.submission.terms import terms_for, terms_in
from tasks.server.connection import connect
from worker_config.celeryconfig import settings_of

if TYPE_CHECKING:
    import redis
    from celery import Celery

    from worker_config.settings import Settings


class Built(NamedTuple):
    """A message that has been built: the arguments of :meth:`Submission.add`."""

    body: Any
    headers: dict[str, Any]
    properties: dict[str, Any]
    queue: str


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
        self._under_way: UnderWay | None = None

    def __len__(self) -> int:
        return len(self._puts)

    @property
    def is_full(self) -> bool:
        """Whether it is as much as a socket takes, so that it goes out while more is built."""
        return len(self._puts) >= MOST_UNDER_WAY or self._bytes >= MOST_BYTES_UNDER_WAY

    def add(
        self,
        body: Any,
        headers: dict[str, Any],
        properties: dict[str, Any],
        queue: str,
        *,
        is_plain: bool = False,
    ) -> None:
        """Have a request sent, too.

        Args:
            body: the arguments, the keywords and what follows the task.
            headers: Celery's.
            properties: further fields, such as ``correlation_id`` and ``priority``.
            queue: where it goes.
            is_plain: whether all of it is of JSON's own types, with texts as keys: nothing follows it, and it was checked.

        Raises:
            InvalidRequest: it is too large.
        """
        put = put_of(body, headers, properties, queue, self._settings, is_plain=is_plain)
        self._puts.append(put)
        self._bytes += len(put.text)

    def clear(self) -> list[str]:
        """Send nothing more; the ids of the requests that are in no queue."""
        try:
            self._finish_page()
        except Refused as refused:
            return refused.unsent
        return [put.task_id for put in self._taken()]

    def begin(self, client: redis.Redis) -> None:
        """Send them, and leave it to the next call to read what Redis says: it queues them meanwhile.

        Raises:
            Refused: one of those that were sent before cannot be queued. None of these is.
        """
        self._finish_page()
        self._under_way = UnderWay(client, self._taken())

    def send(self, client: redis.Redis | None = None) -> None:
        """Queue them, in order, until one is refused.

        Args:
            client: a client of the broker's; without it a connection is made.

        Raises:
            Refused: one cannot be queued. Those that have been queued stay so.
        """
        self._finish_page()
        puts = self._taken()
        if not puts:
            return
        if client is not None:
            send_pages(client, puts)
            return
        with closing(connect(self._app)) as own:
            send_pages(own, puts)

    def _taken(self) -> list[Put]:
        puts, self._puts, self._bytes = self._puts, [], 0
        return puts

    def _finish_page(self) -> None:
        under_way, self._under_way = self._under_way, None
        if under_way is None:
            return
        try:
            under_way.finish()
        except Refused as refused:
            raise Refused(refused.error, [*refused.unsent, *(put.task_id for put in self._taken())]) from None


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
        #: The last message that was built without Celery, and what its sender found out for the next ones.
        self.built: Built | None = None
        self.alike: Any = None
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


def put_of(
    body: Any,
    headers: dict[str, Any],
    properties: dict[str, Any],
    queue: str,
    settings: Settings,
    *,
    is_plain: bool = False,
) -> Put:
    """A request with the message that kombu would write; the arguments are those of :meth:`Submission.add`.

    Raises:
        InvalidRequest: it is too large.
    """
    write = plain_text if is_plain else message_text
    text = write(body)
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
            "delivery_tag": urandom(16).hex(),
        },
    }
    if is_plain:
        args, values, _ = body
        terms = terms_for(args, values, properties, settings)
    else:
        terms = terms_in(text, properties, settings)
    put = Put(destination(queue, priority), headers["id"], write(message), terms)
    require_size("the request's message", len(put.text), MAX_MESSAGE_BYTES)
    return put

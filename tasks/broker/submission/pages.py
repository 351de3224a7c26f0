"""Pages of requests on their way to Redis: as many as go in one round trip, in calls of put.lua."""

from __future__ import annotations

from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from tasks.broker.submission.put import PUT, call_of
from tasks.broker.submission.sending import send_twice
from tasks.broker.submission.sent import SENT
from tasks.errors import GenerationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import redis

    from tasks.broker.submission.put import Put

#: The bounds of one round trip.
MOST_REQUESTS = 200
MOST_BYTES = 2**20
#: The bounds of what is sent ahead: a socket takes it at once, where its sender would wait until Redis has read more.
MOST_UNDER_WAY = 100
MOST_BYTES_UNDER_WAY = 2**17
#: The bounds of one call of put.lua: Redis does nothing else meanwhile.
MOST_IN_SCRIPT = 50
MOST_BYTES_IN_SCRIPT = 2**18


class Refused(Exception):
    """A request cannot be queued because of ``error``; the requests ``unsent`` are in no queue."""

    def __init__(self, error: GenerationError, unsent: list[str]) -> None:
        super().__init__(str(error))
        self.error = error
        self.unsent = unsent


class UnderWay:
    """A page that has been sent, and whose replies are read later. Redis queues it while its sender builds the next one.

    Args:
        client: its connection is kept until then.
        puts: the requests.
    """

    def __init__(self, client: redis.Redis, puts: list[Put]) -> None:
        self._client = client
        self._puts = puts
        self._batches = _batches(puts)
        self._connection = self._sent()

    def finish(self) -> None:
        """Wait until they are queued. What could not be sent, or got no reply, is sent again.

        Raises:
            Refused: one cannot be queued. Those that have been queued stay so.
        """
        replies = self._replies()
        if not replies:
            send_pages(self._client, self._puts)
            return
        unsent = dict.fromkeys(put.task_id for put in self._puts)
        error = _noted(self._batches, replies, unsent)
        if error is not None:
            raise Refused(error, list(unsent))

    def _sent(self) -> Any:
        """The connection on which they were sent, if they could be."""
        connection: Any = None
        try:
            connection = self._client.connection_pool.get_connection()
            connection.send_packed_command(connection.pack_commands(list(_commands(self._batches))))
        except BaseException as error:
            self._drop(connection)
            if not isinstance(error, RedisError | OSError):
                raise
            return None
        return connection

    def _replies(self) -> list[Any]:
        """One for each command, or none."""
        connection, self._connection = self._connection, None
        if connection is None:
            return []
        try:
            replies = [connection.read_response() for _ in range(1 + len(self._batches))]
        except BaseException as error:
            self._drop(connection)
            if not isinstance(error, RedisError | OSError):
                raise
            return []
        self._client.connection_pool.release(connection)
        return replies

    def _drop(self, connection: Any) -> None:
        """Give a connection back without the replies that may still come on it."""
        if connection is not None:
            connection.disconnect()
            self._client.connection_pool.release(connection)


def send_pages(client: redis.Redis, puts: list[Put]) -> None:
    """Queue requests, in order, until one is refused.

    Raises:
        Refused: one cannot be queued. Those that have been queued stay so.
    """
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
    batches = _batches(page)

    def execute() -> list[Any]:
        with client.pipeline(transaction=False) as pipeline:
            add: Any = pipeline.execute_command
            for command in _commands(batches):
                add(*command)
            return pipeline.execute()

    return _noted(batches, send_twice(execute, f"{len(page)} requests"), unsent)


def _batches(page: Sequence[Put]) -> list[list[Put]]:
    """What fits into one call of put.lua each."""
    return [
        batch
        for _, alike in groupby(page, key=attrgetter("alike"))
        for batch in _pages(list(alike), MOST_IN_SCRIPT, MOST_BYTES_IN_SCRIPT)
    ]


def _commands(batches: list[list[Put]]) -> Iterator[tuple[Any, ...]]:
    # The server may have been restarted since, or be another one.
    yield "SCRIPT LOAD", PUT.source
    for batch in batches:
        call = call_of(batch)
        yield "EVALSHA", PUT.digest, len(call.names), *call.names, *call.arguments


def _noted(batches: list[list[Put]], replies: list[Any], unsent: dict[str, None]) -> GenerationError | None:
    """Note which requests were queued, by what Redis replied to the commands; the first refusal."""
    first: GenerationError | None = None
    for batch, reply in zip(batches, replies[1:], strict=True):
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

"""Restores a worker's requests when its connection to Redis is back, which may have come back older than it was.

A server that lost power, or a replica that was promoted, lacks the last writes (docs/reliability.md). This worker knows what it
had written: the journals of what it runs and of what it has just ended, and the messages of both. It writes what is missing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from kombu.utils.json import dumps

from tasks.broker.channel.qos import noted
from tasks.broker.channel.unacked import read_held
from tasks.errors import BrokerUnavailable, GenerationError
from tasks.journal.items import Append, Held
from tasks.messages.journal import End, Error
from tasks.names import is_ours
from tasks.server import keys

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from tasks.journal.items import Closes
    from tasks.journal.writer import Journal
    from tasks.worker.attempts.attempt import Attempt
    from tasks.worker.attempts.job import Job
    from tasks.worker.attempts.publisher import Publisher

logger = logging.getLogger(__name__)

#: A server loses no more than this of its last writes: ``appendfsync everysec`` 2 s, a replica ``min-replicas-max-lag`` (10 s).
KEEP_S = 30.0
KEEP_BYTES = 64 * 1024 * 1024


class _Ended(NamedTuple):
    """What is left of a job: texts and numbers in plain tuples, over which no garbage collection goes.

    An attempt and its message are fifty objects. At some hundred requests a second a collection over those of 30 s took longer
    than a second, in which nothing streamed.
    """

    at: float
    task_id: str
    entries: tuple[tuple[int, int, str, Closes, str], ...]
    held: tuple[str, str] | None

    @classmethod
    def of(cls, attempt: Attempt, at: float) -> _Ended:
        """What its journal needs to be written again, and the note of its message."""
        entries = tuple((item.attempt, item.n, item.payload, item.closes, item.nonce) for item in attempt.items)
        held = attempt.held()
        return cls(at, attempt.task_id, entries, held and (held.tag, held.text))

    @property
    def size_bytes(self) -> int:
        """About."""
        return sum(len(entry[2]) for entry in self.entries) + (len(self.held[1]) if self.held else 0)

    def note(self) -> Held | None:
        """That of its message."""
        return Held(*self.held) if self.held is not None else None

    @property
    def items(self) -> list[Append]:
        """Its journal."""
        return [Append(self.task_id, *entry) for entry in self.entries]


class Recovery:
    """Remembers the requests that have just ended here, and brings Redis up to date after a lost connection.

    Args:
        journal: where the journals are.
        publisher: has the journals of running requests.
        identity: this worker's ``node#boot``.
        result_key: the key of a request's result in Celery's backend.
        keep_s: for how long an ended request is remembered; less than its journal lives.
        keep_bytes: the most that is remembered, about.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        journal: Journal,
        publisher: Publisher,
        identity: str,
        result_key: Callable[[str], str | bytes],
        *,
        keep_s: float = KEEP_S,
        keep_bytes: int = KEEP_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._publisher = publisher
        self._identity = identity
        self._result_key = result_key
        self._keep_s = keep_s
        self._keep_bytes = keep_bytes
        self._clock = clock
        self._ended: deque[_Ended] = deque()
        self._size_bytes = 0
        self._lock = threading.Lock()

    def remember(self, job: Job) -> None:
        """Remember for a while the request that a job has ended."""
        attempt = job.attempt
        if attempt is None:
            return
        self._publisher.close(attempt)
        if not attempt.items or not isinstance(attempt.outcome, End | Error):
            return
        ended = _Ended.of(attempt, self._clock())
        with self._lock:
            self._ended.append(ended)
            self._size_bytes += ended.size_bytes
            self._forget()

    def reconnect(self, channel: Any, jobs: Collection[Job]) -> None:
        """Write to Redis again what this worker runs, holds and has ended; give back messages that it holds and does not run.

        On the consumer's thread, before anything is fetched on a new connection.

        Raises:
            ConnectionError: Redis is away again.
        """
        try:
            self._publisher.doubt()
            self._write_ended()
            running = {message.tag: (job, message) for job in jobs if (message := job.held()) is not None}
            with channel.conn_or_acquire() as client:
                held = {tag.decode() for tag in client.hkeys(channel.unacked_key)}
                for tag in running.keys() - held:
                    self._hold(client, channel, *running[tag])
            for tag in held - running.keys():
                channel.qos.restore_by_tag(tag)
        except BrokerUnavailable as error:
            raise ConnectionError(str(error)) from error

    def _hold(self, client: Any, channel: Any, job: Job, message: Held) -> None:
        """Note in Redis again that this worker holds the message, and the message in the ledger.

        The job's thread may have stored the result meanwhile, in the step that forgets the message: nobody would forget it again.
        """
        channel.qos.hold(*message)
        noted = read_held(client, *message)
        if not is_ours(noted.task):
            return
        if client.exists(self._result_key(noted.task_id)):
            channel.qos.drop(message.tag)
        elif job.attempt is None:
            seconds, microseconds = client.time()
            entry = {"at": seconds + microseconds / 1e6, "queue": noted.list_name, "message": noted.message}
            client.hsetnx(keys.LEDGER, noted.task_id, dumps(entry))

    def _write_ended(self) -> None:
        """Write the entries that Redis lacks of ended journals, and hold their messages again: their results may be lost, too."""
        with self._lock:
            self._forget()
            endings = list(self._ended)
        last_ids = self._journal.last_ids([ending.task_id for ending in endings])
        lacking = [
            ending for ending, last_id in zip(endings, last_ids, strict=True) if last_id != ending.items[-1].entry_id
        ]
        # The mark is written before the journal is deleted. A server that has lost the one has lost the other, too.
        collected = self._journal.collected([ending.task_id for ending in lacking])
        for ending in lacking:
            if ending.task_id in collected:
                continue
            try:
                if self._journal.fill(ending.task_id, ending.items, self._identity, ending.note):
                    logger.warning("Redis had lost the end of request %s; it is written again", ending.task_id)
            except BrokerUnavailable:
                raise
            except GenerationError:
                logger.exception("the journal of request %s cannot be written again", ending.task_id)

    def _forget(self) -> None:
        while self._ended and (self._size_bytes > self._keep_bytes or self._ended[0].at < self._clock() - self._keep_s):
            self._size_bytes -= self._ended.popleft().size_bytes


def held_message(message: Any) -> Held | None:
    """A message of kombu's as it is kept while a worker holds it; ``None`` where it is none of ours."""
    tag = getattr(message, "delivery_tag", None)
    return Held(str(tag), noted(message)) if tag and hasattr(message, "_raw") else None

"""The one thread of a process that listens to Redis for all its readers, whether they block or use asyncio."""

from __future__ import annotations

import random
import selectors
import socket
import threading
import time
from collections import deque
from contextlib import closing, contextmanager, suppress
from copy import copy
from typing import TYPE_CHECKING, Any, TypeVar

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,  # noqa: A004
    RedisError,
    ResponseError,
    TryAgainError,
)

from tasks.errors import BrokerUnavailable, GenerationError
from tasks.server.connection import connect, translated
from tasks.server.resp import pack
from tasks.server.trouble import is_disk_full
from tasks.server.watches import Watches
from tasks.server.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import redis

    from tasks.server.connection import Endpoint
    from tasks.server.watch import Watch

Item = TypeVar("Item")

LONGEST_BACKOFF_S = 2.0
WATCHES_AT_ONCE = 200
#: Refusals to read that pass: during a failover, or while somebody's script runs for too long.
PASSING = (ClusterDownError, TryAgainError)
PASSING_CODES = ("BUSY", "UNKILLABLE")


class Subscription:
    """Follows any number of watches over one subscribed connection and one for reading, on one daemon thread.

    It reconnects with jitter, and then reads for every watch from where it stood.

    Args:
        where: the server.
        contacts: servers that this process has reached.
        retires: asked by the thread whether it may end; when it says so, nobody opens watches here any more.
        ended: called by the thread when it ends, for any reason.
    """

    def __init__(
        self,
        where: Endpoint,
        contacts: set[Endpoint],
        retires: Callable[[Subscription], bool],
        ended: Callable[[Subscription], None],
    ) -> None:
        self.where = where
        self._patience = where.patience
        self._contacts = contacts
        self._retires, self._ended = retires, ended
        self._orders: deque[tuple[str, Watch]] = deque()
        self._watches = Watches()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._is_woken = False
        self._heard_at = self._asked_at = 0.0
        self.thread = threading.Thread(target=self._run, name="celery-mlx-reader", daemon=True)

    def order(self, command: str, watch: Watch) -> None:
        """Have the thread ``open``, ``read`` or ``close`` a watch; from any thread, and it never blocks.

        A close waits for the thread's next turn: with the next open it costs no turn of its own.
        """
        self._orders.append((command, watch))
        if command != "close" and not self._is_woken:
            self._is_woken = True
            with suppress(OSError):  # full: the thread will wake anyway; closed: it has ended, and so has the watch
                self._wake_writer.send(b"w")

    def is_idle(self) -> bool:
        """Whether nobody has listened for a while."""
        quiet_s = time.monotonic() - self._watches.used_at
        return not self._watches and not self._orders and quiet_s > self._patience.idle_s

    def _run(self) -> None:
        try:
            self._connect_and_serve()
        finally:
            self._wake_reader.close()
            self._wake_writer.close()
            # Nobody may wait for a thread that is gone, whatever ended it.
            self._ended(self)
            self._fail(BrokerUnavailable(f"{self.where}: the thread that read from Redis has ended; read again"))

    def _connect_and_serve(self) -> None:
        failures = 0
        while not self._retires(self):
            self._obey_offline()
            if not self._watches:  # a connection that nobody needs would be refused again and again
                self._rest()
                continue
            try:
                # Once: whatever made a read fail may have taken the subscribed connection with it.
                with closing(connect(self.where, attempts=1)) as client, _wires(client) as (messages, reads):
                    failures = 0
                    self._serve(messages, reads)
            except (ResponseError, AuthenticationError) as error:
                failures += 1
                self._fail(BrokerUnavailable(f"{self.where} refuses to let this client read ({error})"))
                self._back_off(failures)
            except (RedisError, OSError) as error:
                failures += 1
                self._tell_of(error)
                self._back_off(failures)

    def _serve(self, messages: Wire, reads: Wire) -> None:
        """Listen and read until nobody has listened for a while; an error of a connection ends it too."""
        self._heard_at, self._asked_at = time.monotonic(), 0.0
        self._watches.disconnect()
        self._subscribe(messages, self._watches.channels)
        with selectors.DefaultSelector() as selector:
            selector.register(messages.socket, selectors.EVENT_READ)
            selector.register(self._wake_reader, selectors.EVENT_READ)
            has_news = True
            while not self.is_idle():
                self._obey(messages)
                has_news = has_news and self._hear(messages)
                self._read(reads)
                self._watches.deliver(time.monotonic())
                self._check_pulse(messages)
                if not has_news and not self._orders and not self._watches.urgent:
                    ready = selector.select(self._watches.rest_s(time.monotonic()))
                    has_news = any(key.fileobj is not self._wake_reader for key, _ in ready)

    def _obey(self, messages: Wire) -> None:
        opened: list[bytes] = []
        closed: list[bytes] = []
        self._clear_wake()
        while self._orders:
            command, watch = self._orders.popleft()
            if command == "open":
                self._watches.open(watch, opened)
            elif command == "read":
                watch.asked = True
                self._watches.urgent.add(watch)
            elif self._watches.close(watch):
                closed.append(watch.channel)
        # In this order, and only what is still so: a channel may have been left and entered in one go.
        gone = [channel for channel in dict.fromkeys(closed) if channel not in self._watches]
        if gone:
            self._ask(messages, "UNSUBSCRIBE", *gone)
        self._subscribe(messages, [channel for channel in dict.fromkeys(opened) if channel in self._watches])

    def _obey_offline(self) -> None:
        """Open and close watches while there is no connection; all are subscribed once there is one."""
        while self._orders:
            command, watch = self._orders.popleft()
            if command == "open":
                self._watches.open(watch, [])
            elif command == "close":
                self._watches.close(watch)

    def _subscribe(self, messages: Wire, channels: list[bytes]) -> None:
        for batch in _batches(channels):
            self._ask(messages, "SUBSCRIBE", *batch)
        self._watches.subscribe(channels)

    def _ask(self, messages: Wire, *command: str | bytes) -> None:
        """Send the commands that are answered on the subscribed connection."""
        messages.send(pack(*command))
        self._asked_at = self._asked_at or time.monotonic()

    def _hear(self, messages: Wire) -> bool:
        """Take publications, and return whether there may be more."""
        heard, has_more = messages.heard()
        if heard:
            self._heard_at, self._asked_at = time.monotonic(), 0.0
        for message in heard:
            if isinstance(message, Exception) and not is_disk_full(message):
                raise message
            if not isinstance(message, list):
                continue
            if message[0] == b"message":
                self._watches.publish(message[1], message[2], self._heard_at)
            elif message[0] == b"subscribe":
                self._watches.confirm(message[1])
        return has_more

    def _read(self, reads: Wire) -> None:
        now = time.monotonic()
        for batch in _batches(self._watches.take_due(now)):
            asked = [watch.ask(now) for watch in batch]
            commands = [pack(*command) for of_watch in asked for command in of_watch]
            reads.drop_if_closed()
            replies = iter(reads.ask(b"".join(commands), len(commands)))
            for watch, of_watch in zip(batch, asked, strict=True):
                self._take(watch, [next(replies) for _ in of_watch])

    def _take(self, watch: Watch, replies: Sequence[Any]) -> None:
        self._watches.touched.add(watch)
        for reply in replies[: watch.essential]:
            if isinstance(reply, PASSING) or (isinstance(reply, Exception) and str(reply).startswith(PASSING_CODES)):
                raise ConnectionError(str(reply))
            if isinstance(reply, Exception):
                watch.end(_translate(reply, watch.about))
                return
        now = watch.reached_at = time.monotonic()
        self._contacts.add(self.where)
        watch.take(replies, now)
        if watch.due_at <= now:
            self._watches.urgent.add(watch)

    def _check_pulse(self, messages: Wire) -> None:
        """Notice a connection that died without a word, as behind a router that was switched off."""
        now = time.monotonic()
        if self._asked_at and now - self._asked_at > self._patience.answer_within_s:
            raise ConnectionError(f"no answer within {self._patience.answer_within_s:g} s")
        if not self._asked_at and now - self._heard_at > self._patience.ping_after_s:
            self._ask(messages, "PING")

    def _tell_of(self, error: Exception) -> None:
        """Have the readers know why nothing comes; those that waited for long enough are told that nothing will."""
        now = time.monotonic()
        problem = f"{self.where}: {error}"
        self._obey_offline()
        bound_s = self._patience.away_s if self.where in self._contacts else self._patience.first_contact_s
        if isinstance(error, BusyLoadingError):  # it is there, and reads its data
            bound_s = 0.0
        for watch in self._watches:
            since = watch.reached_at or watch.began_at
            if bound_s and now - since > bound_s:
                watch.end(BrokerUnavailable(f"{watch.about}: Redis cannot be reached: {problem}", "Redis is not there"))
            else:
                watch.trouble(problem, now)
            watch.deliver()

    def _back_off(self, failures: int) -> None:
        """Wait before the next try: longer each time, and never in step with other processes."""
        time.sleep(random.uniform(0, min(LONGEST_BACKOFF_S, 0.05 * 2**failures)))

    def _rest(self) -> None:
        """Wait until somebody wants to read, for a while."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_reader, selectors.EVENT_READ)
            selector.select(self._patience.idle_s)
        self._clear_wake()

    def _fail(self, error: GenerationError) -> None:
        self._obey_offline()
        for watch in self._watches:
            watch.end(copy(error))  # each is raised on a thread of its own
            watch.deliver()
        self._watches.clear()

    def _clear_wake(self) -> None:
        """Before the first look at the orders: an order after the last look wakes the thread."""
        if self._is_woken:
            self._is_woken = False
            with suppress(BlockingIOError):
                self._wake_reader.recv(4_096)


@contextmanager
def _wires(client: redis.Redis) -> Iterator[tuple[Wire, Wire]]:
    """A connection to listen on, connected, and one to read with, which connects when it is needed."""
    messages, reads = Wire(client), Wire(client)
    try:
        messages.connect()
        yield messages, reads
    finally:
        messages.disconnect()
        reads.disconnect()


def _translate(error: Exception, about: str) -> GenerationError:
    try:
        with translated(about):
            raise error
    except GenerationError as found:
        return found


def _batches(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), WATCHES_AT_ONCE):
        yield items[start : start + WATCHES_AT_ONCE]
